//! Whom a process trusts with the directories and links that lead to its files.
//!
//! Guarantees: trusted are root and the process's own user. A directory is trusted if it belongs to one of them, and
//! nobody else can replace what is in it: others cannot write it, or it is sticky, as `/tmp` is. Then the entries of
//! other users in it are not trusted. A group may write it if nobody else is in the group, as far as `/etc/passwd` and
//! `/etc/group` tell, and if there is no access control list.
//!
//! In a user namespace (`unshare -r`), an owner that is not in the namespace counts as root, because root's files look
//! so there; but not in a sticky directory, where other users' files look so too.

use std::fs;

/// The user of files whose owner is not in the user namespace; see `overflowuid` in `proc_sys_kernel(5)`.
const OVERFLOW: u32 = 65_534;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_ALL: u32 = 0o002;

/// Who is trusted.
#[derive(Debug)]
pub(crate) struct Trust {
    user: u32,
    /// Whether [`OVERFLOW`] means an owner outside the user namespace.
    has_outside: bool,
    passwd: String,
    group: String,
}

/// Who owns an entry, and its mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) mode: u32,
}

/// How far a directory is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody else can write it.
    Own,
    /// Others can create entries in it, but not replace those of root and the user.
    Sticky,
    /// Its group can write it, and nobody else is in the group. An access control list may let others write too.
    OwnGroup,
    /// It belongs to another user.
    Foreign,
    /// Others in its group can write it.
    GroupWritable,
    /// Everybody can write it.
    WritableByAll,
}

impl Trust {
    /// What this process trusts.
    pub(crate) fn of_this_process() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ids = read("/proc/self/uid_map");
        Self {
            user: rustix::process::geteuid().as_raw(),
            // Without `/proc` it is not known, and so not trusted.
            has_outside: !ids.is_empty() && !maps(&ids, OVERFLOW),
            passwd: read("/etc/passwd"),
            group: read("/etc/group"),
        }
    }

    /// How far the directory is trusted.
    pub(crate) fn directory(&self, found: Owned) -> Verdict {
        let may_write = |who: u32| found.mode & who != 0;
        if !self.is_own(found.user) && !self.is_outside(found.user) {
            Verdict::Foreign
        } else if may_write(STICKY) && may_write(WRITABLE_BY_GROUP | WRITABLE_BY_ALL) {
            Verdict::Sticky
        } else if may_write(WRITABLE_BY_ALL) {
            Verdict::WritableByAll
        } else if !may_write(WRITABLE_BY_GROUP) {
            Verdict::Own
        } else if self.is_alone_in(found.group) {
            Verdict::OwnGroup
        } else {
            Verdict::GroupWritable
        }
    }

    /// Whether an entry of this owner is trusted, in a directory that is trusted so far.
    pub(crate) fn entry(&self, owner: u32, directory: Verdict) -> bool {
        self.is_own(owner) || directory != Verdict::Sticky && self.is_outside(owner)
    }

    /// Who else is trusted, in words.
    pub(crate) const fn whom(&self) -> &'static str {
        if self.user == 0 { "root" } else { "you and root" }
    }

    const fn is_own(&self, owner: u32) -> bool {
        owner == 0 || owner == self.user
    }

    const fn is_outside(&self, owner: u32) -> bool {
        self.has_outside && owner == OVERFLOW
    }

    /// Whether only root and the user are in the group.
    fn is_alone_in(&self, group: u32) -> bool {
        let users: Vec<(&str, u32, u32)> = self.passwd.lines().filter_map(user_of).collect();
        let members = self.group.lines().find_map(|line| members_of(line, group));
        let is_known = |name: &str| users.iter().any(|&(other, user, _)| other == name && self.is_own(user));
        members.is_some_and(|members| members.split(',').filter(|name| !name.is_empty()).all(is_known))
            && users.iter().all(|&(_, user, primary)| primary != group || self.is_own(user))
    }
}

/// Name, number and primary group of a line of `/etc/passwd`.
fn user_of(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let (name, _, user, group) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some((name, user.parse().ok()?, group.parse().ok()?))
}

/// The members in a line of `/etc/group`, if it is about this group.
fn members_of(line: &str, group: u32) -> Option<&str> {
    let mut fields = line.split(':').skip(2);
    (fields.next()?.parse() == Ok(group)).then(|| fields.next().unwrap_or_default())
}

/// Whether a user is in the namespace. `ids` is the content of `/proc/self/uid_map`: first inside, first outside, count.
fn maps(ids: &str, user: u32) -> bool {
    ids.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        match (numbers.next(), numbers.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => {
                user.checked_sub(first).is_some_and(|offset| offset < count)
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\nbob:x:1001:1002::/:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:\nann:x:1000:\nwheel:x:50:root,ann\nboth:x:60:ann,bob\nbobs:x:1002:\ngone:x:70:nobody\n";

    fn trust(user: u32) -> Trust {
        Trust { user, has_outside: false, passwd: PASSWD.to_owned(), group: GROUP.to_owned() }
    }

    #[test]
    fn a_directory_is_trusted_if_nobody_else_can_replace_what_is_in_it() {
        let of = |user, group, mode| Owned { user, group, mode };
        for (me, found, verdict) in [
            (0, of(0, 0, 0o40755), Verdict::Own),
            (0, of(0, 5, 0o40755), Verdict::Own),
            (0, of(1000, 1000, 0o40700), Verdict::Foreign),
            (0, of(65_534, 65_534, 0o41777), Verdict::Foreign),
            (0, of(0, 1000, 0o42775), Verdict::GroupWritable),
            (0, of(0, 0, 0o40775), Verdict::OwnGroup),
            (0, of(0, 0, 0o40777), Verdict::WritableByAll),
            (0, of(0, 0, 0o40757), Verdict::WritableByAll),
            (0, of(0, 0, 0o41777), Verdict::Sticky),
            (0, of(0, 5, 0o41775), Verdict::Sticky),
            (1000, of(0, 0, 0o40755), Verdict::Own),
            (1000, of(1001, 1002, 0o40755), Verdict::Foreign),
            (1000, of(1000, 1000, 0o40775), Verdict::OwnGroup),
            (1000, of(1000, 50, 0o40775), Verdict::OwnGroup),
            (1000, of(1000, 60, 0o40775), Verdict::GroupWritable),
            (1000, of(1000, 1002, 0o40775), Verdict::GroupWritable),
            // Of these it is not known who is in them.
            (1000, of(1000, 70, 0o40775), Verdict::GroupWritable),
            (1000, of(1000, 4711, 0o40775), Verdict::GroupWritable),
        ] {
            assert_eq!(trust(me).directory(found), verdict, "{me} {found:?}");
        }
    }

    #[test]
    fn entries_of_others_are_not_trusted() {
        let trust = trust(1000);
        for (owner, is_trusted) in [(0, true), (1000, true), (1001, false), (OVERFLOW, false)] {
            for directory in [Verdict::Own, Verdict::Sticky] {
                assert_eq!(trust.entry(owner, directory), is_trusted, "{owner} {directory:?}");
            }
        }
    }

    #[test]
    fn what_is_outside_a_namespace_counts_as_roots_but_in_a_sticky_directory() {
        let inside = Trust { has_outside: true, ..trust(0) };
        let root = Owned { user: OVERFLOW, group: OVERFLOW, mode: 0o40755 };
        assert_eq!(inside.directory(root), Verdict::Own);
        assert_eq!(inside.directory(Owned { mode: 0o41777, ..root }), Verdict::Sticky);
        assert!(inside.entry(OVERFLOW, Verdict::Own) && !inside.entry(OVERFLOW, Verdict::Sticky));
        let whole = "         0          0 4294967295\n";
        assert!(maps(whole, OVERFLOW) && !maps("0 1000 1\n", OVERFLOW));
        assert!(maps("0 1000 1\n1 100000 65536\n", OVERFLOW) && !maps("0 100000 65534\n", OVERFLOW));
    }
}
