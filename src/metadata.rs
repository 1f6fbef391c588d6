//! Metadata: a new version gets what `open` or `mkdir` would give, a replacing one what the old had, but for what the body
//! sets itself.
//!
//! Staging is given the old version's metadata before the body runs. So the body sees it, and changes what it wants; the
//! commit has nothing to do, unless the destination has changed meanwhile:
//!
//! ```text
//!     begin: old ──▶ staging          the body           settle: old is as it was?  ──▶ nothing
//!            (noted: shown)                                      else               ──▶ merge: what still is as shown
//!                                                                                            gets what old has now
//! ```
//!
//! What a tool makes by itself (`Entry`) cannot be given anything before: there the commit compares with what an empty file or
//! folder gets that is made beside it.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::destination::Destination;
use crate::error::{Error, Hint, Result};
use crate::options::Settings;
use crate::slot;
use crate::sys::{self, Stat, errno};

mod acl;
pub(crate) mod flags;
use acl::Acl;

const ACCESS_ACL: &CStr = c"system.posix_acl_access";
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

/// Extended attributes and their values.
type Xattrs = Vec<(CString, Vec<u8>)>;

fn value<'a>(xattrs: &'a Xattrs, name: &CStr) -> Option<&'a [u8]> {
    xattrs.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.as_slice())
}

/// Is it kept when its file is replaced? What users have noted, ACLs and security labels are; capabilities and signatures
/// (`security.capability`, `security.ima`, `security.evm`) are about the old content.
fn is_kept(name: &CStr) -> bool {
    let bytes = name.to_bytes();
    bytes.starts_with(b"user.") || is_acl(name) || is_label(name)
}

fn is_acl(name: &CStr) -> bool {
    *name == *ACCESS_ACL || *name == *DEFAULT_ACL
}

fn is_label(name: &CStr) -> bool {
    let bytes = name.to_bytes();
    bytes == b"security.selinux" || bytes == b"security.apparmor" || bytes.starts_with(b"security.SMACK64")
}

/// What staging shows to its body: what differs from it at the commit was set by the body.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) stat: Stat,
    xattrs: Xattrs,
}

impl Shown {
    /// What something shows that this process has just made.
    pub(crate) fn by(destination: &Destination, fd: BorrowedFd) -> io::Result<Self> {
        let names = listed(destination, sys::list_xattrs_of(fd), fd)?;
        Ok(Self { stat: sys::stat_fd(fd)?, xattrs: read_xattrs(fd, names)? })
    }

    /// The same, known to have no extended attributes of its own, or none that matter.
    fn bare(stat: Stat) -> Self {
        Self { stat, xattrs: Vec::new() }
    }
}

fn read_xattrs(fd: BorrowedFd, names: Vec<CString>) -> io::Result<Xattrs> {
    let mut xattrs = Vec::new();
    for name in names {
        if is_kept(&name) {
            if let Some(value) = sys::get_xattr_of(fd, &name)? {
                xattrs.push((name, value));
            }
        }
    }
    Ok(xattrs)
}

/// What staging was given before the body.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The version that it is from.
    from: Option<Stat>,
    /// That version, open: closed together with others at the end.
    pub(crate) held: Option<OwnedFd>,
    /// What staging showed afterwards; `None` if nobody has looked.
    pub(crate) shown: Option<Shown>,
    /// The mode that it is to have in the end, if the body needs more rights until then.
    later: Option<u32>,
}

/// What a version carries beside its content.
pub(crate) struct Metadata {
    stat: Stat,
    xattrs: Xattrs,
    /// Those of its inode flags that are kept.
    flags: u32,
}

/// What came of giving a version its metadata.
struct Gave {
    /// The mode that it should have.
    mode: u32,
    /// May the present mode have changed?
    changed: bool,
    uid: u32,
    gid: u32,
}

impl Metadata {
    /// What `name` beside a destination carries, and the descriptor that it was read by; `staged` is what will carry it.
    fn of(destination: &Destination, name: &OsStr, stat: Stat, staged: BorrowedFd) -> Result<(Self, Option<OwnedFd>)> {
        let failed = |error| destination.failed("reading the old version's metadata", error);
        // To open a file may cost a server much.
        if destination.slots().domain().is_some() {
            if let Some(metadata) = Self::by_path(destination, name, stat, staged).map_err(failed)? {
                return Ok((metadata, None));
            }
        }
        let mut patience = slot::Patience::default();
        loop {
            let error = match sys::open_any(destination.parent(), name) {
                Ok(fd) => match Self::of_open(destination, fd.as_fd(), stat, staged) {
                    Ok(metadata) => return Ok((metadata, Some(fd))),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            match errno(&error) {
                _ if patience.again(destination.slots(), &error) => {}
                // Replaced or removed just now: the commit looks again.
                libc::ENOENT | libc::ESTALE | libc::ELOOP => {
                    return Ok((Self { stat, xattrs: Vec::new(), flags: 0 }, None));
                }
                libc::EACCES | libc::EPERM => {
                    let read = Self::by_path(destination, name, stat, staged).map_err(failed)?;
                    let hint = Hint::UnreadableAcl;
                    return read.map(|metadata| (metadata, None)).ok_or_else(|| failed(error).hint(hint));
                }
                _ => return Err(failed(error)),
            }
        }
    }

    /// The same of an open file.
    fn of_open(destination: &Destination, fd: BorrowedFd, stat: Stat, staged: BorrowedFd) -> io::Result<Self> {
        let names = listed(destination, sys::list_xattrs_of(fd), staged)?;
        Ok(Self { stat, xattrs: read_xattrs(fd, names)?, flags: flags::of_old(destination, fd)? })
    }

    /// The same without opening it; its flags remain unknown. `None` without `/proc`. The l-calls do not follow the last
    /// component; `O_PATH` handles have no `flistxattr` (`EBADF`).
    fn by_path(destination: &Destination, name: &OsStr, stat: Stat, staged: BorrowedFd) -> io::Result<Option<Self>> {
        let mut path = sys::proc_path(destination.parent());
        if !matches!(sys::stat_followed(sys::CWD, &path), Ok(Some(_))) {
            return Ok(None);
        }
        path.push("/");
        path.push(name);
        let path = sys::cstring(&path)?;
        let names = match listed(destination, sys::list_xattrs(&path), staged) {
            Err(error) if matches!(errno(&error), libc::ENOENT | libc::ESTALE) => Vec::new(),
            other => other?,
        };
        let mut xattrs = Vec::new();
        for name in names.into_iter().filter(|name| is_kept(name)) {
            if let Some(value) = sys::get_xattr(&path, &name)? {
                xattrs.push((name, value));
            }
        }
        Ok(Some(Self { stat, xattrs, flags: 0 }))
    }

    /// All that an open file of a tree has: for a clone.
    pub(crate) fn all(fd: BorrowedFd, stat: Stat) -> io::Result<Self> {
        let mut xattrs = Vec::new();
        for name in sys::list_xattrs_of(fd)? {
            if let Some(value) = sys::get_xattr_of(fd, &name)? {
                xattrs.push((name, value));
            }
        }
        Ok(Self { stat, xattrs, flags: 0 })
    }

    /// Gives a clone all of it, where permitted. `born` is what is new in its folder: what such an inode
    /// is like, and whether it has inherited an ACL; `None` looks.
    pub(crate) fn give_all(mut self, fd: BorrowedFd, born: Option<(&Stat, bool)>) -> io::Result<()> {
        let (born, acl) = match born {
            Some((stat, acl)) => (*stat, acl),
            None => (sys::stat_fd(fd)?, has_acl(fd)?),
        };
        let inherited = if acl { vec![ACCESS_ACL.to_owned(), DEFAULT_ACL.to_owned()] } else { Vec::new() };
        let mut mode = self.give(fd, &born, &inherited)?.mode;
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

    /// Gives `fd` this metadata but the mode and the flags. `born` is what it was like, `inherited` the attributes that it had.
    /// What cannot be kept is dropped here, too, and with it whatever would give others more than they had.
    fn give(&mut self, fd: BorrowedFd, born: &Stat, inherited: &[CString]) -> io::Result<Gave> {
        let (uid, gid) = keep_owner(fd, &self.stat, born)?;
        let own = (self.stat.uid, self.stat.gid);
        let limited = |mut acl: Acl| {
            acl.drop_unnamable();
            if uid != own.0 {
                acl.lose_owner(own.0);
            }
            if gid != own.1 {
                acl.lose_group();
            }
            acl
        };
        let (acls, others): (Xattrs, Xattrs) =
            std::mem::take(&mut self.xattrs).into_iter().partition(|(name, _)| is_acl(name));
        let mut changed = own != (born.uid, born.gid);
        let mut access = limited(match value(&acls, ACCESS_ACL) {
            // Its group bits are the mask: the group's own rights are not known.
            Some(value) => Acl::parse(value).unwrap_or_else(|| Acl::of_mode(self.stat.mode & !0o070)),
            None => Acl::of_mode(self.stat.mode),
        });
        if access.is_more_than_a_mode() {
            changed = true;
            if set_acl(fd, ACCESS_ACL, &access)? {
                self.xattrs.push((ACCESS_ACL.to_owned(), access.value()));
            } else {
                access.drop_named();
            }
        }
        if let Some(default) = value(&acls, DEFAULT_ACL).and_then(Acl::parse) {
            let mut default = limited(default);
            if !set_acl(fd, DEFAULT_ACL, &default)? {
                default.drop_named();
                set_acl(fd, DEFAULT_ACL, &default)?;
            }
            self.xattrs.push((DEFAULT_ACL.to_owned(), default.value()));
        }
        // What staging inherited from its folder, and the old version does not have.
        for name in inherited.iter().filter(|name| is_acl(name) && value(&self.xattrs, name).is_none()) {
            changed = true;
            match sys::remove_xattr(fd, name) {
                Err(error) if errno(&error) == libc::ENODATA => {}
                other => other?,
            }
        }
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
        Ok(Gave { mode: self.stat.mode & 0o7000 | access.mode(), changed, uid, gid })
    }
}

/// The names of extended attributes. rclone answers `EIO` of every file, since it has none; elsewhere that is a failure.
fn listed(
    destination: &Destination,
    names: io::Result<Vec<CString>>,
    of_another: BorrowedFd,
) -> io::Result<Vec<CString>> {
    let failed = |names: &io::Result<Vec<CString>>| matches!(names, Err(error) if errno(error) == libc::EIO);
    let has_none = failed(&names) && destination.slots().domain().is_some() && failed(&sys::list_xattrs_of(of_another));
    if has_none { Ok(Vec::new()) } else { names }
}

/// User xattrs need more rights than writing in some places; `security.*` and `trusted.*` need root, and a security module
/// may not know a label.
fn set_where_permitted(fd: BorrowedFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    match sys::set_xattr(fd, name, value) {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EACCES | libc::EOPNOTSUPP) => Ok(()),
        Err(error) if errno(&error) == libc::EINVAL && is_label(name) => Ok(()),
        other => other,
    }
}

/// Sets an ACL; false where it is not permitted, or not understood.
fn set_acl(fd: BorrowedFd, name: &CStr, acl: &Acl) -> io::Result<bool> {
    match sys::set_xattr(fd, name, &acl.value()) {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EACCES | libc::EOPNOTSUPP | libc::EINVAL) => {
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

/// Has it an ACL, or one for what is made in it?
pub(crate) fn has_acl(fd: BorrowedFd) -> io::Result<bool> {
    Ok(sys::list_xattrs_of(fd)?.iter().any(|name| is_acl(name)))
}

/// Gives a symlink or FIFO of a clone its owner, where permitted, and its times.
pub(crate) fn give_name(at: BorrowedFd, name: &OsStr, stat: &Stat) -> io::Result<()> {
    match sys::chown_name(at, name, stat.uid, stat.gid) {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EINVAL) => {}
        other => other?,
    }
    sys::set_times_of_name(at, name, stat.times)
}

/// Gives the staged version the owner and group of the old one, where permitted; answers whose it is now.
fn keep_owner(fd: BorrowedFd, old: &Stat, born: &Stat) -> io::Result<(u32, u32)> {
    // `EINVAL`: no number in this user namespace. A number that may stand for such a one is nobody's to give.
    let refused = |result: io::Result<()>| match result {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EINVAL) => Ok(true),
        other => other.map(|()| false),
    };
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

/// The version whose metadata the new one keeps, if any.
fn kept_from(destination: &Destination, settings: &Settings, old: Option<Stat>) -> Option<Stat> {
    old.filter(|old| settings.preserve && old.kind() != libc::S_IFLNK && !destination.is_strangers(old))
}

/// The permission bits that a new version keeps: set-id bits of a file are about the old content; of a folder they are about
/// its entries.
fn without_set_ids(mode: u32, old: &Stat) -> u32 {
    mode & if old.is_folder() { 0o7777 } else { 0o1777 }
}

/// Who works in staging while the body runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Whoever has its descriptor: no permission is needed.
    ByDescriptor,
    /// Who opens it by its name.
    ByName,
}

/// Gives staging, still empty, the metadata of the version that is to be replaced: `old`, which may be open as `present`.
/// `born` is what staging is like, if that is known.
pub(crate) fn begin(
    destination: &Destination,
    settings: &Settings,
    fd: BorrowedFd,
    (old, present): (Option<Stat>, Option<BorrowedFd>),
    born: Option<Stat>,
    work: Work,
) -> Result<Given> {
    let Some(old) = kept_from(destination, settings, old) else {
        return Ok(Given { shown: born.map(Shown::bare), ..Given::default() });
    };
    let failed = |error| destination.failed("setting the new version's metadata", error);
    let present = present.map(|open| Metadata::of_open(destination, open, old, fd));
    let (mut metadata, held) = match present {
        Some(Ok(metadata)) => (metadata, None),
        Some(Err(error)) if !slot::is_change(&error) => return Err(failed(error)),
        // Not open, or open and replaced, which a network filesystem cannot read any more.
        _ => Metadata::of(destination, &destination.name, old, fd)?,
    };
    let mut give = || {
        if metadata.flags != 0 {
            flags::give(fd, metadata.flags)?;
        }
        let born = born.map_or_else(|| sys::stat_fd(fd), Ok)?;
        let inherited = listed(destination, sys::list_xattrs_of(fd), fd)?;
        let gave = metadata.give(fd, &born, &inherited)?;
        let mode = without_set_ids(gave.mode, &old);
        let needed = match work {
            Work::ByDescriptor => 0,
            Work::ByName if old.is_folder() => 0o700,
            Work::ByName => 0o600,
        };
        let now = mode | needed;
        if gave.changed || born.permissions() != now {
            sys::chmod(fd, now)?;
        }
        let stat = Stat { mode: born.kind() | now, uid: gave.uid, gid: gave.gid, ..born };
        let shown = Some(Shown { stat, xattrs: std::mem::take(&mut metadata.xattrs) });
        let later = (now != mode).then_some(mode);
        Ok(Given { from: Some(old), held: None, shown, later })
    };
    let given = give().map_err(failed)?;
    // FUSE and NFS keep the name of what is open.
    Ok(Given { held: held.filter(|_| destination.slots().domain().is_none()), ..given })
}

/// Makes a slot hand on to what a tool makes in it the flags that must be set before there is content.
pub(crate) fn hand_on_flags(
    destination: &Destination,
    settings: &Settings,
    slot: BorrowedFd,
    old: Option<Stat>,
) -> Result<()> {
    if kept_from(destination, settings, old).is_none() || destination.slots().domain().is_some() {
        return Ok(());
    }
    let hand_on = || {
        let old = match sys::open_any(destination.parent(), &destination.name) {
            // Gone, or not for this user to read: its flags are not known.
            Err(error) if matches!(errno(&error), libc::ENOENT | libc::ELOOP | libc::EACCES | libc::EPERM) => {
                return Ok(());
            }
            other => other?,
        };
        match flags::of_old(destination, old.as_fd())? & flags::HANDED_ON {
            0 => Ok(()),
            flags => flags::give(slot, flags),
        }
    };
    hand_on().map_err(|error| destination.failed("setting the slot's metadata", error))
}

/// Gives the staged version its final metadata; `old` is the version to be replaced, `staged` what is staged, if that is
/// known. `fresh` says what an empty file or folder would show, where staging was given nothing. Answers the
/// mode to set after the publish, if it is one that a folder could not be moved with.
pub(crate) fn settle(
    destination: &Destination,
    settings: &Settings,
    (fd, staged): (BorrowedFd, Option<Stat>),
    old: Option<Stat>,
    given: &Given,
    fresh: impl FnOnce() -> io::Result<Shown>,
) -> Result<Option<u32>> {
    let old = kept_from(destination, settings, old);
    let unchanged = match (&given.from, &old) {
        (Some(from), Some(now)) => from.is_unchanged(now),
        (_, now) => now.is_none(),
    };
    if unchanged && given.later.is_none() && settings.permissions.is_none() && staged.is_none() {
        return Ok(None);
    }
    let failed = |error| destination.failed("setting the new version's metadata", error);
    let staged = staged.map_or_else(|| sys::stat_fd(fd), Ok).map_err(failed)?;
    let untouched = |shown: &Shown| shown.stat.permissions() == staged.permissions();
    let (mut wanted, mut changed) = (given.later.filter(|_| given.shown.as_ref().is_some_and(untouched)), false);
    if let (false, Some(old)) = (unchanged, old) {
        let shown = match &given.shown {
            Some(shown) => shown.clone(),
            None => fresh().map_err(failed)?,
        };
        let (now, _held) = Metadata::of(destination, &destination.name, old, fd)?;
        if let Some(gave) = merge(destination, now, fd, &staged, &shown).map_err(failed)? {
            (wanted, changed) = (Some(without_set_ids(gave.mode, &old)), gave.changed);
        }
    }
    let mode = settings.permissions.or(wanted).unwrap_or(staged.permissions());
    // Syncing a folder needs to read and search it, moving it to another parent to write it.
    let (now, later) =
        if staged.is_folder() && mode & 0o700 != 0o700 { (mode | 0o700, Some(mode)) } else { (mode, None) };
    if changed || staged.permissions() != now {
        sys::chmod(fd, now).map_err(failed)?;
    }
    Ok(later)
}

/// The modification time of a staged folder, if its body has set it: else it is that of its begin, or of the last change of
/// its status.
pub(crate) fn own_time(staged: &Stat, given: &Given) -> Option<(i64, u32)> {
    let modified = staged.times[1];
    let first = given.shown.as_ref().map(|shown| shown.stat.times[1]);
    (modified != staged.changed && Some(modified) != first).then_some(modified)
}

/// Restores the modification time of a folder that has been exchanged: xfs gives it the time of the exchange
/// (`xfs_cross_rename`).
pub(crate) fn keep_time(folder: BorrowedFd, modified: (i64, u32)) -> io::Result<()> {
    let now = sys::stat_fd(folder)?;
    if now.times[1] == modified { Ok(()) } else { sys::set_times(folder, [now.times[0], modified]) }
}

/// Gives staging what the old version has now, but for what the body has set: what is no longer as it was `shown`. Owner, group,
/// mode and ACL are one thing: who has set one of them has said who may do what. Answers what came of it.
fn merge(
    destination: &Destination,
    mut old: Metadata,
    fd: BorrowedFd,
    staged: &Stat,
    shown: &Shown,
) -> io::Result<Option<Gave>> {
    let names = listed(destination, sys::list_xattrs_of(fd), fd)?;
    let now = read_xattrs(fd, names)?;
    flags::add(fd, old.flags)?;
    let told = |stat: &Stat| (stat.permissions(), stat.uid, stat.gid);
    let acl = |xattrs| value(xattrs, ACCESS_ACL).and_then(Acl::parse).map(Acl::beside_owner);
    let rights_alone = told(staged) == told(&shown.stat) && acl(&now) == acl(&shown.xattrs);
    let alone = |name: &CStr| {
        if *name == *ACCESS_ACL { rights_alone } else { value(&now, name) == value(&shown.xattrs, name) }
    };
    for (name, _) in shown.xattrs.iter().filter(|(name, _)| !is_acl(name) && alone(name)) {
        if value(&old.xattrs, name).is_none() {
            sys::remove_xattr(fd, name)?;
        }
    }
    old.xattrs.retain(|(name, _)| alone(name));
    if rights_alone {
        let inherited: Vec<CString> = now.iter().map(|(name, _)| name.clone()).filter(|name| alone(name)).collect();
        return old.give(fd, staged, &inherited).map(Some);
    }
    for (name, value) in &old.xattrs {
        set_where_permitted(fd, name, value)?;
    }
    Ok(None)
}

/// Makes a slot in another folder (`tmp_dir`) hand on what the destination's folder would: its group,
/// if that is set-group-id, and its default ACL.
pub(crate) fn inherit(destination: &Destination, slot: BorrowedFd) -> Result<()> {
    if !destination.elsewhere() {
        return Ok(());
    }
    let failed =
        |error: io::Error| -> Error { destination.failed("staging in tmp_dir", error).hint(Hint::NotInherited) };
    let parent = sys::stat_fd(destination.parent()).map_err(failed)?;
    let (given, _held) = Metadata::of(destination, OsStr::new("."), parent, slot)?;
    hand_on(destination, slot, &parent, &given.xattrs).map_err(failed)
}

fn hand_on(destination: &Destination, slot: BorrowedFd, parent: &Stat, given: &Xattrs) -> io::Result<()> {
    let staged = sys::stat_fd(slot)?;
    let hands_on = parent.mode & libc::S_ISGID != 0;
    let gid = if hands_on { parent.gid } else { sys::egid() };
    if gid != staged.gid {
        sys::chown(slot, None, Some(gid))?;
    }
    sys::chmod(slot, destination.slots().mode()? | if hands_on { 0o2000 } else { 0 })?;
    match value(given, DEFAULT_ACL) {
        Some(value) => sys::set_xattr(slot, DEFAULT_ACL, value),
        None if sys::list_xattrs_of(slot)?.iter().any(|name| **name == *DEFAULT_ACL) => {
            sys::remove_xattr(slot, DEFAULT_ACL)
        }
        None => Ok(()),
    }
}
