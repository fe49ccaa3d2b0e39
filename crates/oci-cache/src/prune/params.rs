//! The parameters of the method `image.cache.prune`: a policy in a form that can be sent and stored.
//!
//! Guarantees: they can state every part of a [`Policy`] but [`Policy::watch_first`], which would leave a request without an
//! answer for the grace. Nothing is ignored: an unknown field, a pin that is none and
//! what excludes each other are errors. An absent field means the same as in [`Policy::default`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::amount::Amount;
use crate::plan::pins::{ParsePinError, Pin, Pins};
use crate::plan::policy::Policy;

/// The parameters of the `image.cache.prune` method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PruneParams {
    /// Only report what would be removed.
    pub dry_run: bool,
    /// [`Policy::older_than`], in seconds.
    pub older_than_seconds: Option<u64>,
    /// [`Policy::unreferenced`].
    pub unreferenced: bool,
    /// [`Policy::corrupt`].
    pub corrupt: bool,
    /// [`Policy::keep`]: names and digests.
    pub keep: Vec<String>,
    /// [`Policy::images`]: names and digests.
    pub images: Vec<String>,
    /// [`Policy::untagged`].
    pub untagged: bool,
    /// [`Policy::max_used`].
    pub max_used: Option<Amount>,
    /// [`Policy::min_free`].
    pub min_free: Option<Amount>,
    /// [`Policy::grace`], in seconds.
    pub grace_seconds: Option<u64>,
    /// [`Policy::strict`].
    pub strict: bool,
}

/// Parameters state no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// What should be a name or a digest is neither.
    #[error(transparent)]
    Pin(#[from] ParsePinError),
    /// A percentage is above 100.
    #[error("{0} percent of a file system: there is no more than 100")]
    Percent(u8),
    /// Both images and single blobs are selected.
    #[error("`images` and `untagged` select whole images: leave out `unreferenced` and `corrupt`")]
    ImagesAndBlobs,
}

impl PruneParams {
    /// The policy that they state.
    ///
    /// # Errors
    ///
    /// [`ParamsError`] if they state none.
    pub fn policy(&self) -> Result<Policy, ParamsError> {
        let amounts = [self.max_used, self.min_free].into_iter().flatten();
        for amount in amounts {
            if let Amount::Percent(percent @ 101..) = amount {
                return Err(ParamsError::Percent(percent));
            }
        }
        let mut policy = Policy {
            older_than: self.older_than_seconds.map(Duration::from_secs),
            unreferenced: self.unreferenced,
            corrupt: self.corrupt,
            keep: pins(&self.keep, |pin| pin)?,
            images: pins(&self.images, Pin::exact)?,
            untagged: self.untagged,
            max_used: self.max_used,
            min_free: self.min_free,
            strict: self.strict,
            ..Policy::default()
        };
        if let Some(seconds) = self.grace_seconds {
            policy.grace = Duration::from_secs(seconds);
        }
        if policy.selects_images() && (policy.unreferenced || policy.corrupt) {
            return Err(ParamsError::ImagesAndBlobs);
        }
        Ok(policy)
    }
}

fn pins(texts: &[String], meaning: impl Fn(Pin) -> Pin) -> Result<Pins, ParamsError> {
    let mut pins = Pins::default();
    for text in texts {
        pins.insert(meaning(text.parse()?));
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<Policy, String> {
        let params: PruneParams = serde_json::from_str(json).map_err(|error| error.to_string())?;
        params.policy().map_err(|error| error.to_string())
    }

    #[test]
    fn every_part_of_a_policy_can_be_stated() {
        assert!(policy("{}").unwrap().is_everything());
        let all = policy(
            r#"{"dry_run": true, "older_than_seconds": 60, "keep": ["app:1"], "images": ["app:2"], "untagged": true,
                "max_used": {"percent": 20}, "min_free": {"bytes": 1000}, "grace_seconds": 0, "strict": true}"#,
        );
        let all = all.unwrap();
        assert_eq!((all.older_than, all.grace), (Some(Duration::from_secs(60)), Duration::ZERO));
        assert!(all.strict && !policy("{}").unwrap().strict);
        assert_eq!((all.max_used, all.min_free), (Some(Amount::Percent(20)), Some(Amount::Bytes(1000))));
        assert!(!all.keep.is_empty() && !all.images.is_empty() && all.untagged);
        let blobs = policy(r#"{"unreferenced": true, "corrupt": true}"#).unwrap();
        assert_eq!((blobs.unreferenced, blobs.corrupt, blobs.grace), (true, true, Policy::default().grace));
    }

    #[test]
    fn what_states_no_policy_is_refused() {
        for json in [
            r#"{"older_than": 60}"#,
            r#"{"older_than_seconds": -1}"#,
            r#"{"older_than_seconds": "7d"}"#,
            r#"{"keep": ["no name"]}"#,
            r#"{"keep": ["sha256:12"]}"#,
            r#"{"max_used": 1000}"#,
            r#"{"max_used": {"percent": 101}}"#,
            r#"{"min_free": {"percent": 101}}"#,
            r#"{"min_free": {"percent": 256}}"#,
            r#"{"min_free": {"bytes": 1, "percent": 1}}"#,
            r#"{"images": ["app:1"], "corrupt": true}"#,
            r#"{"images": ["app:1"], "unreferenced": true}"#,
            r#"{"untagged": true, "unreferenced": true}"#,
        ] {
            assert!(policy(json).is_err(), "{json}");
        }
    }

    #[test]
    fn they_are_the_same_after_a_way_through_json() {
        let params = PruneParams {
            older_than_seconds: Some(u64::MAX),
            keep: vec!["app:1".to_owned()],
            max_used: Some(Amount::Percent(7)),
            min_free: Some(Amount::Bytes(u64::MAX)),
            ..PruneParams::default()
        };
        let json = serde_json::to_string(&params).unwrap();
        assert_eq!(serde_json::from_str::<PruneParams>(&json).unwrap(), params);
    }
}
