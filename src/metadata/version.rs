//! `Metadata`: the attributes of a version, read from the old version and given to the new one.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::acl::Acl;
use super::flags;
use super::xattrs::{
    ACCESS_ACL, DEFAULT_ACL, Xattrs, has_acl, is_acl, is_kept, is_label, listed, read_kept, set_acl,
    set_where_permitted, value,
};
use crate::destination::Destination;
use crate::error::{Hint, Result};
use crate::slot;
use crate::sys::{self, Stat, errno};

/// The attributes of a version.
#[derive(Clone)]
pub(crate) struct Metadata {
    pub(super) stat: Stat,
    pub(super) xattrs: Xattrs,
    /// Those of its inode flags that are kept.
    pub(super) flags: u32,
}

/// The result of giving a version its metadata.
pub(super) struct Gave {
    /// The mode that the version should have.
    pub(super) mode: u32,
    /// May the present mode have changed?
    pub(super) changed: bool,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Metadata {
    /// The metadata of `name` beside a destination, and the descriptor that it was read by. `staged` is the version
    /// that will carry it.
    pub(super) fn of(
        destination: &Destination,
        name: &OsStr,
        stat: Stat,
        staged: BorrowedFd,
    ) -> Result<(Self, Option<OwnedFd>)> {
        let failed = |error| destination.failed("reading the old version's metadata", error);
        // Opening a file may cost a server much.
        let unopened = || match destination.slots().domain() {
            Some(_) => Self::by_path(destination, name, stat, staged),
            None => Ok(None),
        };
        let open = || {
            let fd = sys::open_any(destination.parent(), name)?;
            Self::of_open(destination, fd.as_fd(), stat, staged).map(|metadata| (metadata, Some(fd)))
        };
        let mut patience = slot::Patience::default();
        loop {
            let error = match unopened().and_then(|read| read.map_or_else(open, |metadata| Ok((metadata, None)))) {
                Ok(read) => return Ok(read),
                Err(error) => error,
            };
            match errno(&error) {
                _ if patience.again(destination.slots(), &error) => {}
                // The version was replaced or removed just now. The commit reads the metadata again.
                libc::ENOENT | libc::ESTALE | libc::ELOOP => {
                    return Ok((Self { stat, xattrs: Vec::new(), flags: 0 }, None));
                }
                libc::EACCES | libc::EPERM => {
                    let read = Self::by_path(destination, name, stat, staged).map_err(failed)?;
                    let unread = || failed(error).hint(Hint::UnreadableAcl);
                    return read.map(|metadata| (metadata, None)).ok_or_else(unread);
                }
                _ => return Err(failed(error)),
            }
        }
    }

    /// The metadata of an open file.
    pub(super) fn of_open(
        destination: &Destination,
        fd: BorrowedFd,
        stat: Stat,
        staged: BorrowedFd,
    ) -> io::Result<Self> {
        let names = listed(destination, sys::list_xattrs_of(fd), staged)?;
        Ok(Self { stat, xattrs: read_kept(fd, names)?, flags: flags::of_old(destination, fd)? })
    }

    /// The metadata of a file that is not opened, without its flags; `None` without `/proc`. The l-calls do not follow
    /// the last component; `O_PATH` handles have no `flistxattr` (`EBADF`).
    fn by_path(destination: &Destination, name: &OsStr, stat: Stat, staged: BorrowedFd) -> io::Result<Option<Self>> {
        let mut path = sys::proc_path(destination.parent());
        if !matches!(sys::stat_followed(sys::CWD, &path), Ok(Some(_))) {
            return Ok(None);
        }
        path.push("/");
        path.push(name);
        let path = sys::cstring(&path)?;
        let names = listed(destination, sys::list_xattrs(&path), staged)?;
        let mut xattrs = Vec::new();
        for name in names.into_iter().filter(|name| is_kept(name)) {
            if let Some(value) = sys::get_xattr(&path, &name)? {
                xattrs.push((name, value));
            }
        }
        Ok(Some(Self { stat, xattrs, flags: 0 }))
    }

    /// All attributes of an open file of a tree: for a clone.
    pub(crate) fn all(fd: BorrowedFd, stat: Stat) -> io::Result<Self> {
        let mut xattrs = Vec::new();
        for name in sys::list_xattrs_of(fd)? {
            if let Some(value) = sys::get_xattr_of(fd, &name)? {
                xattrs.push((name, value));
            }
        }
        Ok(Self { stat, xattrs, flags: 0 })
    }

    /// Gives a clone all of it, where permitted. `born` describes a new inode in the clone's folder, and says whether
    /// that inode has inherited an ACL; with `None` the clone itself is asked.
    pub(crate) fn give_all(mut self, fd: BorrowedFd, born: Option<(&Stat, bool)>) -> io::Result<()> {
        let (born, acl) = match born {
            Some((stat, acl)) => (*stat, acl),
            None => (sys::stat_fd(fd)?, has_acl(fd)?),
        };
        let inherited = if acl { vec![ACCESS_ACL.to_owned(), DEFAULT_ACL.to_owned()] } else { Vec::new() };
        let mut mode = self.give(fd, &born, &inherited)?.mode;
        if mode & 0o6000 != 0 {
            // Set-id bits lend the rights of an owner or a group. They are dropped if the clone has another one.
            let now = sys::stat_fd(fd)?;
            if (now.uid, now.gid) != (self.stat.uid, self.stat.gid) {
                mode &= 0o1777;
            }
        }
        sys::chmod(fd, mode)?;
        sys::set_times(fd, self.stat.times)
    }

    /// Gives `fd` this metadata but the mode and the flags. `born` describes `fd` before, `inherited` names the
    /// attributes that it had. Metadata that cannot be kept is dropped, and with it each right that would be wider
    /// without it.
    pub(super) fn give(&mut self, fd: BorrowedFd, born: &Stat, inherited: &[CString]) -> io::Result<Gave> {
        let (uid, gid) = keep_owner(fd, &self.stat, born)?;
        let (acls, others): (Xattrs, Xattrs) =
            std::mem::take(&mut self.xattrs).into_iter().partition(|(name, _)| is_acl(name));
        let mut access = self.limited(
            (uid, gid),
            match value(&acls, ACCESS_ACL) {
                // With a value that is not understood, the group bits are the mask: the group's own rights are not
                // known.
                Some(value) => Acl::parse(value).unwrap_or_else(|| Acl::of_mode(self.stat.mode & !0o070)),
                None => Acl::of_mode(self.stat.mode),
            },
        );
        let mut changed = (self.stat.uid, self.stat.gid) != (born.uid, born.gid);
        if access.is_more_than_a_mode() {
            changed = true;
            if set_acl(fd, ACCESS_ACL, &access)? {
                self.xattrs.push((ACCESS_ACL.to_owned(), access.value()));
            } else {
                access.drop_named();
            }
        }
        if let Some(default) = value(&acls, DEFAULT_ACL).and_then(Acl::parse) {
            let mut default = self.limited((uid, gid), default);
            if !set_acl(fd, DEFAULT_ACL, &default)? {
                default.drop_named();
                set_acl(fd, DEFAULT_ACL, &default)?;
            }
            self.xattrs.push((DEFAULT_ACL.to_owned(), default.value()));
        }
        // ACLs that staging inherited from its folder, and that the old version does not have.
        for name in inherited.iter().filter(|name| is_acl(name) && value(&self.xattrs, name).is_none()) {
            changed = true;
            match sys::remove_xattr(fd, name) {
                Err(error) if errno(&error) == libc::ENODATA => {}
                other => other?,
            }
        }
        self.give_others(fd, others, inherited)?;
        Ok(Gave { mode: self.stat.mode & 0o7000 | access.mode(), changed, uid, gid })
    }

    /// Limits an ACL for an owner or a group that differs from that of this metadata.
    fn limited(&self, (uid, gid): (u32, u32), mut acl: Acl) -> Acl {
        acl.drop_unnamable();
        if uid != self.stat.uid {
            acl.lose_owner(self.stat.uid);
        }
        if gid != self.stat.gid {
            acl.lose_group();
        }
        acl
    }

    /// Gives `fd` the attributes that are no ACLs.
    fn give_others(&mut self, fd: BorrowedFd, others: Xattrs, inherited: &[CString]) -> io::Result<()> {
        for (name, value) in others {
            // Setting a label asks for rights, even if it stays the same.
            let same = is_label(&name) && inherited.contains(&name) && {
                sys::get_xattr_of(fd, &name)?.as_deref() == Some(&value)
            };
            if !same {
                set_where_permitted(fd, &name, &value)?;
            }
            self.xattrs.push((name, value));
        }
        Ok(())
    }
}

/// Gives a symlink or FIFO of a clone its owner, where permitted, and its times.
pub(crate) fn give_name(at: BorrowedFd, name: &OsStr, stat: &Stat) -> io::Result<()> {
    match sys::chown_name(at, name, stat.uid, stat.gid) {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EINVAL) => {}
        other => other?,
    }
    sys::set_times_of_name(at, name, stat.times)
}

/// Gives the staged version the owner and group of the old one, where permitted; answers with the owner and group that
/// it has now.
fn keep_owner(fd: BorrowedFd, old: &Stat, born: &Stat) -> io::Result<(u32, u32)> {
    // `EINVAL`: the id has no number in this user namespace.
    let refused = |result: io::Result<()>| match result {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EINVAL) => Ok(true),
        other => other.map(|()| false),
    };
    // The kernel shows this id for all ids without a number here. So it stands for no user that a file could be given
    // to.
    let nameless = |id: u32| id == sys::OVERFLOW_ID && !sys::all_ids_have_numbers();
    let uid = (old.uid != born.uid && !nameless(old.uid)).then_some(old.uid);
    let gid = (old.gid != born.gid && !nameless(old.gid)).then_some(old.gid);
    if uid.is_some() && !refused(sys::chown(fd, uid, gid))? {
        return Ok((uid.unwrap_or(born.uid), gid.unwrap_or(born.gid)));
    }
    if gid.is_some() && !refused(sys::chown(fd, None, gid))? {
        return Ok((born.uid, gid.unwrap_or(born.gid)));
    }
    Ok((born.uid, born.gid))
}
