//! Metadata. A new version gets the metadata that `open` or `mkdir` would give it. A replacing version gets that of the
//! old version, except for the metadata that its body sets.
//!
//! Staging is given the old version's metadata before the body runs. So the body sees it and can change it. The commit
//! has nothing to do, unless the destination has changed meanwhile:
//!
//! ```text
//!     begin: old ──▶ staging          the body           settle: old is unchanged?  ──▶ nothing
//!            (noted: shown)                                      else               ──▶ merge: metadata that is still as
//!                                                                                       shown becomes as old has it now
//! ```
//!
//! A file or folder that a tool makes by itself (`Entry`) cannot be given anything before the body. There the commit
//! compares it with an empty file or folder that is made beside it.

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
mod version;
mod xattrs;

use acl::Acl;
use version::Gave;
pub(crate) use version::{Metadata, give_name};
pub(crate) use xattrs::has_acl;
use xattrs::{ACCESS_ACL, DEFAULT_ACL, Xattrs, is_acl, listed, read_kept, set_where_permitted, value};

/// The metadata of staging when its body begins. Metadata that differs at the commit was set by the body.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) stat: Stat,
    xattrs: Xattrs,
}

impl Shown {
    /// The metadata of a file or folder that this process has just made.
    pub(crate) fn by(destination: &Destination, fd: BorrowedFd) -> io::Result<Self> {
        let names = listed(destination, sys::list_xattrs_of(fd), fd)?;
        Ok(Self { stat: sys::stat_fd(fd)?, xattrs: read_kept(fd, names)? })
    }

    /// The metadata of a file or folder that is known to have no extended attributes that matter.
    fn bare(stat: Stat) -> Self {
        Self { stat, xattrs: Vec::new() }
    }
}

/// The metadata that staging was given before the body.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The version that the metadata is from.
    from: Option<Stat>,
    /// That version, open: the commit closes it together with others.
    pub(crate) held: Option<OwnedFd>,
    /// The metadata of staging afterwards; `None` if it was not read.
    pub(crate) shown: Option<Shown>,
    /// The mode that staging is to have in the end, if the body needs more rights until then.
    later: Option<u32>,
}

/// The version whose metadata the new version keeps, if there is one.
fn kept_from(destination: &Destination, settings: &Settings, old: Option<Stat>) -> Option<Stat> {
    old.filter(|old| settings.preserve && old.kind() != libc::S_IFLNK && !destination.is_strangers(old))
}

/// The permission bits that a new version keeps. Set-id bits of a file are about its old content, and are dropped;
/// set-id bits of a folder are about its entries.
fn without_set_ids(mode: u32, old: &Stat) -> u32 {
    mode & if old.is_folder() { 0o7777 } else { 0o1777 }
}

/// How the body comes to staging.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// By an open descriptor: no permission is needed.
    ByDescriptor,
    /// By its name: its owner must have the permission to open it.
    ByName,
}

/// Gives empty staging the metadata of the version that is to be replaced: `old`, which may be open as `present`.
/// `born` describes staging, if it is known.
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
    let (metadata, held) = match present {
        Some(Ok(metadata)) => (metadata, None),
        Some(Err(error)) if !slot::is_change(&error) => return Err(failed(error)),
        // The old version is not open, or a network filesystem cannot read it any more, since it was replaced.
        _ => Metadata::of(destination, &destination.name, old, fd)?,
    };
    let give = || {
        let mut metadata = metadata.clone();
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
    let given = destination.patiently(|| give().map_err(failed))?;
    // FUSE and NFS keep a name of a replaced file for as long as it is open.
    Ok(Given { held: held.filter(|_| destination.slots().domain().is_none()), ..given })
}

/// Gives a slot the old version's flags that must be set before there is content, so that a file or folder which a tool
/// makes in the slot inherits them.
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
            // The old version is gone, or this user may not read it: its flags are not known.
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

/// Gives the staged version its final metadata. `old` is the version to be replaced, `staged` describes the new one, if
/// it is known. Where staging was given nothing, `fresh` reads the metadata of an empty file or folder. Answers with
/// the mode to set after the publish, if a folder could not be moved with it.
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
    let staged = destination.patiently(|| staged.map_or_else(|| sys::stat_fd(fd), Ok).map_err(failed))?;
    let untouched = |shown: &Shown| shown.stat.permissions() == staged.permissions();
    let (mut wanted, mut changed) = (given.later.filter(|_| given.shown.as_ref().is_some_and(untouched)), false);
    if let (false, Some(old)) = (unchanged, old) {
        let shown = match &given.shown {
            Some(shown) => shown.clone(),
            None => fresh().map_err(failed)?,
        };
        let (now, _held) = Metadata::of(destination, &destination.name, old, fd)?;
        let merged = destination.patiently(|| merge(destination, now.clone(), fd, &staged, &shown).map_err(failed))?;
        if let Some(gave) = merged {
            (wanted, changed) = (Some(without_set_ids(gave.mode, &old)), gave.changed);
        }
    }
    let mode = settings.permissions.or(wanted).unwrap_or(staged.permissions());
    // Syncing a folder needs the permission to read and search it, moving it to another parent that to write it.
    let (now, later) =
        if staged.is_folder() && mode & 0o700 != 0o700 { (mode | 0o700, Some(mode)) } else { (mode, None) };
    if changed || staged.permissions() != now {
        destination.patiently(|| sys::chmod(fd, now).map_err(failed))?;
    }
    Ok(later)
}

/// The modification time of a staged folder, if its body has set it. A time that no body has set is that of the begin,
/// or equals the time of the last change of the folder's status.
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

/// Gives staging the metadata that the old version has now, except for what the body has set, which differs from
/// `shown`. Owner, group, mode and ACL together say which user may do what: if the body has set one of them, all of
/// them stay, and the answer is `None`.
fn merge(
    destination: &Destination,
    mut old: Metadata,
    fd: BorrowedFd,
    staged: &Stat,
    shown: &Shown,
) -> io::Result<Option<Gave>> {
    let names = listed(destination, sys::list_xattrs_of(fd), fd)?;
    let now = read_kept(fd, names)?;
    flags::add(fd, old.flags)?;
    let rights = |stat: &Stat| (stat.permissions(), stat.uid, stat.gid);
    let acl = |xattrs| value(xattrs, ACCESS_ACL).and_then(Acl::parse).map(Acl::without_owner);
    let rights_untouched = rights(staged) == rights(&shown.stat) && acl(&now) == acl(&shown.xattrs);
    let untouched = |name: &CStr| {
        if *name == *ACCESS_ACL { rights_untouched } else { value(&now, name) == value(&shown.xattrs, name) }
    };
    for (name, _) in shown.xattrs.iter().filter(|(name, _)| !is_acl(name) && untouched(name)) {
        if value(&old.xattrs, name).is_none() {
            sys::remove_xattr(fd, name)?;
        }
    }
    old.xattrs.retain(|(name, _)| untouched(name));
    if rights_untouched {
        let inherited: Vec<CString> = now.iter().map(|(name, _)| name.clone()).filter(|name| untouched(name)).collect();
        return old.give(fd, staged, &inherited).map(Some);
    }
    for (name, value) in &old.xattrs {
        set_where_permitted(fd, name, value)?;
    }
    Ok(None)
}

/// Makes files in a slot inherit as if they were made in the destination's folder, if the slot is in another
/// (`tmp_dir`): the group, if the destination's folder is set-group-id, and the default ACL.
pub(crate) fn inherit(destination: &Destination, slot: BorrowedFd) -> Result<()> {
    if !destination.elsewhere() {
        return Ok(());
    }
    let failed =
        |error: io::Error| -> Error { destination.failed("staging in tmp_dir", error).hint(Hint::NotInherited) };
    let parent = sys::stat_fd(destination.parent()).map_err(failed)?;
    let (given, _held) = Metadata::of(destination, OsStr::new("."), parent, slot)?;
    inherit_from(destination, slot, &parent, &given.xattrs).map_err(failed)
}

fn inherit_from(destination: &Destination, slot: BorrowedFd, parent: &Stat, given: &Xattrs) -> io::Result<()> {
    let staged = sys::stat_fd(slot)?;
    let set_gid = parent.mode & libc::S_ISGID != 0;
    let gid = if set_gid { parent.gid } else { sys::egid() };
    if gid != staged.gid {
        sys::chown(slot, None, Some(gid))?;
    }
    sys::chmod(slot, destination.slots().mode()? | if set_gid { 0o2000 } else { 0 })?;
    match value(given, DEFAULT_ACL) {
        Some(value) => sys::set_xattr(slot, DEFAULT_ACL, value),
        None if sys::list_xattrs_of(slot)?.iter().any(|name| **name == *DEFAULT_ACL) => {
            sys::remove_xattr(slot, DEFAULT_ACL)
        }
        None => Ok(()),
    }
}
