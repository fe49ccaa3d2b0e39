//! A layer of which a client knows the content.
//!
//! Guarantees: the content follows from the number, so everything that is read can be checked.

use std::fs::{DirBuilder, File, FileTimes};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rand::RngExt as _;

use crate::kit::pulls::broken::{self, Broken, at};
use crate::kit::random::random;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A layer of which the client knows the content.
#[derive(Clone, Copy)]
pub(crate) struct Layer {
    pub(crate) number: u64,
}

impl Layer {
    /// Its path in a flat cache.
    pub(crate) fn path_in(self, cache: &Path) -> PathBuf {
        cache.join(format!("sha256:{:064x}", self.number))
    }

    pub(crate) fn content(self) -> Vec<u8> {
        format!("layer {:016x} ", self.number)
            .repeat(64 + usize::from(self.number.to_le_bytes()[0]))
            .into_bytes()
    }

    /// Checks what a pull reads.
    pub(crate) fn check(self, mut file: File) -> Result<(), Broken> {
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(at("read"))?;
        broken::check(&content, &self.content()).map_err(at("content"))
    }

    /// Writes the layer and returns the open file. Its times may say that it is up to 30 days old.
    pub(crate) fn download(self, cache: &Path) -> Result<File, Broken> {
        DirBuilder::new().recursive(true).create(cache).map_err(at("mkdir"))?;
        let mut file = File::create(self.path_in(cache)).map_err(at("create"))?;
        for part in self.content().chunks(1024) {
            file.write_all(part).map_err(at("write"))?;
            broken::think(8, 3000);
        }
        let mut random = random();
        let read = ago(random.random_range(0.0..1.0));
        match random.random_range(0..3) {
            0 => {}
            1 => age(&file, read, read).map_err(at("set the times"))?,
            _ => age(&file, read + HOUR, read).map_err(at("set the times"))?,
        }
        Ok(file)
    }
}

/// How long ago a layer was last read: from a minute to 30 days.
fn ago(share: f64) -> Duration {
    const MOST_IN_MINUTES: f64 = 30.0 * 24.0 * 60.0;
    Duration::from_secs_f64(60.0 * MOST_IN_MINUTES.powf(share))
}

/// Sets how long ago a file was written and read.
#[expect(clippy::disallowed_methods, reason = "a file's times are the clock's")]
pub(crate) fn age(file: &File, written: Duration, read: Duration) -> io::Result<()> {
    let now = SystemTime::now();
    file.set_times(FileTimes::new().set_modified(now - written).set_accessed(now - read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_reach_from_a_minute_to_thirty_days() {
        assert_eq!(ago(0.0), Duration::from_secs(60));
        assert_eq!(ago(1.0).as_secs() / (24 * 3600), 30);
    }
}
