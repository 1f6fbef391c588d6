//! Metadata: a new version gets what `open` or `mkdir` would give, a replacing one what the old had.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::BorrowedFd;

use crate::destination::Destination;
use crate::error::Result;
use crate::options::Settings;
use crate::sys::{self, Stat, errno};

const ACCESS_ACL: &CStr = c"system.posix_acl_access";
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

/// What a version carries beside its content.
pub(crate) struct Metadata {
    stat: Stat,
    /// Where it was read, if by a path.
    path: Option<CString>,
    /// `user.*` and ACLs; no capabilities, no security labels: these are about the old content.
    xattrs: Vec<(CString, Vec<u8>)>,
}

impl Metadata {
    /// What `name` beside a destination carries; `staged` is what will carry it.
    fn of(destination: &Destination, name: &OsStr, stat: Stat, staged: BorrowedFd) -> io::Result<Self> {
        // The l-calls do not follow the last component; O_PATH handles have no flistxattr (EBADF).
        let mut path = sys::proc_path(destination.parent());
        path.push("/");
        path.push(name);
        let path = sys::cstring(&path)?;
        let names = match listed(destination, sys::list_xattrs(&path), || sys::list_xattrs_of(staged)) {
            Err(error) if matches!(errno(&error), libc::ENOENT | libc::ESTALE) => Vec::new(),
            other => other?,
        };
        let mut xattrs = Vec::new();
        for name in names {
            if name.to_bytes().starts_with(b"user.") || *name == *ACCESS_ACL || *name == *DEFAULT_ACL {
                if let Some(value) = sys::get_xattr(&path, &name)? {
                    xattrs.push((name, value));
                }
            }
        }
        Ok(Self { stat, path: Some(path), xattrs })
    }

    /// All that an open file of a tree has: for a clone.
    pub(crate) fn all(fd: BorrowedFd, stat: Stat) -> io::Result<Self> {
        let mut xattrs = Vec::new();
        for name in sys::list_xattrs_of(fd)? {
            if let Some(value) = sys::get_xattr_of(fd, &name)? {
                xattrs.push((name, value));
            }
        }
        Ok(Self { stat, path: None, xattrs })
    }

    /// Gives a clone all of it, where permitted. `born` is what is new in its folder: what such an inode
    /// is like, and whether it has inherited an ACL; `None` looks.
    pub(crate) fn give_all(&self, fd: BorrowedFd, born: Option<(&Stat, bool)>) -> io::Result<()> {
        let (born, acl) = match born {
            Some((stat, acl)) => (*stat, acl),
            None => (sys::stat_fd(fd)?, has_acl(fd)?),
        };
        keep_owner(fd, &self.stat, &born)?;
        if acl {
            for name in [ACCESS_ACL, DEFAULT_ACL] {
                if !self.xattrs.iter().any(|(kept, _)| **kept == *name) {
                    match sys::remove_xattr(fd, name) {
                        Err(error) if errno(&error) == libc::ENODATA => {}
                        other => other?,
                    }
                }
            }
        }
        for (name, value) in &self.xattrs {
            set_where_permitted(fd, name, value)?;
        }
        let mut mode = self.stat.permissions();
        if mode & 0o6000 != 0 {
            // Set-id bits lend an owner's or a group's rights: not another's.
            let now = sys::stat_fd(fd)?;
            if (now.uid, now.gid) != (self.stat.uid, self.stat.gid) {
                mode &= 0o1777;
            }
        }
        sys::chmod(fd, mode)?;
        sys::set_times(fd, self.stat.times)
    }

    /// Gives `fd` this metadata but the mode; answers the mode that it should have, and whether the
    /// present one may have changed.
    fn apply(mut self, destination: &Destination, fd: BorrowedFd, staged: &Stat) -> io::Result<(u32, bool)> {
        // Set-id bits of a file are about the old content; of a folder they are about its entries.
        let mut mode = self.stat.permissions() & if self.stat.is_folder() { 0o7777 } else { 0o1777 };
        let mut changed = (self.stat.uid, self.stat.gid) != (staged.uid, staged.gid);
        if !keep_owner(fd, &self.stat, staged)? {
            // The group's rights would go to another group: it gets no more than all others have.
            mode &= !0o070 | (mode & 0o007) << 3;
            for (name, value) in &mut self.xattrs {
                if **name == *ACCESS_ACL {
                    restrict_group(value);
                }
            }
        }
        // What staging inherited from its folder, and the old version does not have.
        let of_old = || self.path.as_ref().map_or(Ok(Vec::new()), |path| sys::list_xattrs(path));
        for name in listed(destination, sys::list_xattrs_of(fd), of_old)? {
            if (*name == *ACCESS_ACL || *name == *DEFAULT_ACL) && !self.xattrs.iter().any(|(kept, _)| *kept == name) {
                sys::remove_xattr(fd, &name)?;
                changed = true;
            }
        }
        for (name, value) in &self.xattrs {
            changed = true;
            set_where_permitted(fd, name, value)?;
        }
        Ok((mode, changed))
    }
}

/// The names of extended attributes. rclone answers `EIO` of every file, since it has none; elsewhere that is a failure.
fn listed(
    destination: &Destination,
    names: io::Result<Vec<CString>>,
    of_another: impl FnOnce() -> io::Result<Vec<CString>>,
) -> io::Result<Vec<CString>> {
    let failed = |names: &io::Result<Vec<CString>>| matches!(names, Err(error) if errno(error) == libc::EIO);
    let has_none = failed(&names) && destination.slots().domain().is_some() && failed(&of_another());
    if has_none { Ok(Vec::new()) } else { names }
}

/// User xattrs need more rights than writing in some places; `security.*` and `trusted.*` need root.
fn set_where_permitted(fd: BorrowedFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    match sys::set_xattr(fd, name, value) {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EACCES | libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Has it an ACL, or one for what is made in it?
pub(crate) fn has_acl(fd: BorrowedFd) -> io::Result<bool> {
    Ok(sys::list_xattrs_of(fd)?.iter().any(|name| **name == *ACCESS_ACL || **name == *DEFAULT_ACL))
}

/// Gives a symlink or FIFO of a clone its owner, where permitted, and its times.
pub(crate) fn give_name(at: BorrowedFd, name: &OsStr, stat: &Stat) -> io::Result<()> {
    match sys::chown_name(at, name, stat.uid, stat.gid) {
        Err(error) if errno(&error) == libc::EPERM => {}
        other => other?,
    }
    sys::set_times_of_name(at, name, stat.times)
}

/// Gives the staged version the owner and group of the old one; false if the group could not be kept.
fn keep_owner(fd: BorrowedFd, old: &Stat, staged: &Stat) -> io::Result<bool> {
    let refused = |result: io::Result<()>| match result {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EINVAL) => Ok(true),
        other => other.map(|()| false),
    };
    let gid = (old.gid != staged.gid).then_some(old.gid);
    if old.uid != staged.uid && !refused(sys::chown(fd, Some(old.uid), gid))? {
        return Ok(true);
    }
    Ok(gid.is_none() || !refused(sys::chown(fd, None, gid))?)
}

/// Takes from the owning group's entry of a POSIX ACL (`acl(5)`: version, then tag, rights, id) what
/// others do not have.
fn restrict_group(acl: &mut [u8]) {
    let entries = |acl: &[u8]| {
        (4..acl.len().saturating_sub(7))
            .step_by(8)
            .map(|at| (at, u16::from_le_bytes([acl[at], acl[at + 1]])))
            .collect::<Vec<_>>()
    };
    let others = entries(acl).iter().find(|(_, tag)| *tag == 0x20).map_or(0, |(at, _)| acl[at + 2]);
    for (at, tag) in entries(acl) {
        if tag == 0x04 {
            acl[at + 2] &= others;
        }
    }
}

/// Gives the staged version its final metadata; `old` is the version to be replaced. Answers the
/// mode to set after the publish, if it is one that a folder could not be moved with.
pub(crate) fn settle(
    destination: &Destination,
    settings: &Settings,
    fd: BorrowedFd,
    old: Option<Stat>,
) -> Result<Option<u32>> {
    let old = old.filter(|old| settings.preserve && old.kind() != libc::S_IFLNK && !destination.is_strangers(old));
    if old.is_none() && settings.permissions.is_none() {
        return Ok(None);
    }
    let settle = || {
        let staged = sys::stat_fd(fd)?;
        let (kept, changed) = match old {
            Some(stat) => Metadata::of(destination, &destination.name, stat, fd)?
                .apply(destination, fd, &staged)
                .map(|(mode, changed)| (Some(mode), changed))?,
            None => (None, false),
        };
        let Some(mode) = settings.permissions.or(kept) else { return Ok(None) };
        // Syncing a folder needs to read and search it, moving it to another parent to write it.
        let (now, later) =
            if staged.is_folder() && mode & 0o700 != 0o700 { (mode | 0o700, Some(mode)) } else { (mode, None) };
        if changed || staged.permissions() != now {
            sys::chmod(fd, now)?;
        }
        Ok(later)
    };
    settle().map_err(|error| destination.failed("setting the new version's metadata", error))
}

/// Makes a slot in another folder (`tmp_dir`) hand on what the destination's folder would: its group,
/// if that is set-group-id, and its default ACL.
pub(crate) fn inherit(destination: &Destination, slot: BorrowedFd) -> Result<()> {
    if !destination.elsewhere() {
        return Ok(());
    }
    hand_on(destination, slot).map_err(|error| {
        destination.failed("staging in tmp_dir", error).hint(
            "what is made there cannot be given the group and default ACL of the destination's folder: leave tmp_dir out",
        )
    })
}

fn hand_on(destination: &Destination, slot: BorrowedFd) -> io::Result<()> {
    let (parent, staged) = (sys::stat_fd(destination.parent())?, sys::stat_fd(slot)?);
    let hands_on = parent.mode & libc::S_ISGID != 0;
    let gid = if hands_on { parent.gid } else { sys::egid() };
    if gid != staged.gid {
        sys::chown(slot, None, Some(gid))?;
    }
    sys::chmod(slot, destination.slots().mode()? | if hands_on { 0o2000 } else { 0 })?;
    let given = Metadata::of(destination, OsStr::new("."), parent, slot)?;
    match given.xattrs.iter().find(|(name, _)| **name == *DEFAULT_ACL) {
        Some((name, value)) => sys::set_xattr(slot, name, value),
        None if sys::list_xattrs_of(slot)?.iter().any(|name| **name == *DEFAULT_ACL) => {
            sys::remove_xattr(slot, DEFAULT_ACL)
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_could_not_be_kept_gets_what_others_have() {
        let entry = |tag: u16, rights: u16| [tag.to_le_bytes(), rights.to_le_bytes(), [0xff; 2], [0xff; 2]].concat();
        let mut acl = [vec![2, 0, 0, 0], entry(0x01, 6), entry(0x04, 6), entry(0x10, 6), entry(0x20, 4)].concat();
        restrict_group(&mut acl);
        assert_eq!(acl, [vec![2, 0, 0, 0], entry(0x01, 6), entry(0x04, 4), entry(0x10, 6), entry(0x20, 4)].concat());
    }
}
