//! Is a folder part of a displaced version? Nothing is published there any more.
//!
//! A displaced version is in a slot. So is staging, and a body may publish files in its own staging. That is allowed:
//! then the path that the body has given leads into the slot, and the slot has an owner that is alive.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::beside::Beside;
use super::name::{Kind, parse};
use super::observe::list;
use super::orphans::remove_displaced;
use crate::checkpoint;
use crate::sys::{self, Lock};

/// Does the kernel know a folder as removed? (`proc(5)`: its path then ends so.)
pub(crate) fn is_removed(folder: BorrowedFd) -> bool {
    match sys::path_now(folder) {
        Ok(path) => path.as_bytes().ends_with(b" (deleted)"),
        Err(_) => sys::stat_fd(folder).is_ok_and(|stat| stat.links == 0),
    }
}

/// Is this folder part of a displaced version? `leads_into` says whether the caller's path leads into a slot. A slot
/// that has no living owner is reclaimed.
pub(crate) fn is_displaced(folder: BorrowedFd, beside: Beside, leads_into: impl Fn(&Path) -> bool) -> bool {
    let path = match sys::path_now(folder) {
        Ok(path) => PathBuf::from(path),
        // Without /proc, or too deep for a path.
        Err(_) => path_by_steps(folder),
    };
    slots_above(&path)
        .iter()
        .any(|(slot, domain)| !leads_into(slot) || *domain == beside.domain() && reclaim_if_abandoned(slot))
}

/// The slots that a path leads through, with their lock domains.
fn slots_above(path: &Path) -> Vec<(PathBuf, Option<u64>)> {
    let mut slots = Vec::new();
    // Mostly there is none, and this search is enough.
    if !path.as_os_str().as_bytes().windows(9).any(|part| part == b"/.atomik-") {
        return slots;
    }
    let (mut above, mut parts) = (PathBuf::new(), path.iter());
    while let Some(part) = parts.next() {
        above.push(part);
        let Some(parsed) = parse(part) else { continue };
        if matches!(parsed.kind, Kind::Room(_)) {
            above.extend(parts.next());
        }
        slots.push((above.clone(), parsed.domain));
    }
    slots
}

/// Has a slot no living owner? Its owner was killed, or has left a pinned version there. If the version is not pinned
/// any more, the slot is removed.
fn reclaim_if_abandoned(slot: &Path) -> bool {
    let lock =
        || sys::open_folder(sys::CWD, slot.as_os_str()).and_then(|slot| Ok((sys::lock_shared(slot.as_fd())?, slot)));
    let Ok((Lock::Held, held)) = lock() else { return false };
    // A reader that lets go of the version at this moment finds the slot locked and leaves it. So this process removes
    // it.
    let version =
        list(held.as_fd()).ok().and_then(|entries| sys::open_folder(held.as_fd(), &entries.first()?.name).ok());
    drop(held);
    if let Some(version) = version {
        drop(remove_displaced(version, &mut checkpoint::go_on));
    }
    true
}

/// The path of a folder, found step by step. A folder above that has the mode of a slot is looked up in the folder that
/// holds it. The others are called `?`.
fn path_by_steps(folder: BorrowedFd) -> PathBuf {
    let mut names: Vec<OsString> = Vec::new();
    let mut at: Option<OwnedFd> = None;
    loop {
        let here = at.as_ref().map_or(folder, AsFd::as_fd);
        let Ok(above) = sys::open_folder(here, OsStr::new("..")) else { break };
        let (Ok(this), Ok(outer)) = (sys::stat_fd(here), sys::stat_fd(above.as_fd())) else { break };
        if this.same(&outer) {
            break;
        }
        let private = this.permissions() & 0o777 == 0o700;
        let found = if private { list(above.as_fd()).ok() } else { None };
        let found = found.and_then(|entries| entries.into_iter().find(|entry| entry.inode == this.ino));
        names.push(found.map_or_else(|| OsString::from("?"), |entry| entry.name));
        at = Some(above);
    }
    names.push("/".into());
    names.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_of_a_path_are_named_with_what_lies_between() {
        let found = |path: &str| slots_above(Path::new(path)).into_iter().map(|(slot, _)| slot).collect::<Vec<_>>();
        assert_eq!(found("/a/.atomik-lock"), [""; 0].map(PathBuf::from));
        assert_eq!(found("/a/.atomik-0.b~/b/c"), ["/a/.atomik-0.b~"].map(PathBuf::from));
        assert_eq!(
            found("/a/.atomik-u0.b~/0123/b/.atomik-s0000000000000007.c~/c"),
            ["/a/.atomik-u0.b~/0123", "/a/.atomik-u0.b~/0123/b/.atomik-s0000000000000007.c~"].map(PathBuf::from)
        );
    }

    #[test]
    fn without_proc_a_slot_is_found_step_by_step() {
        let home = tempfile::tempdir().unwrap();
        let inside = home.path().join(".atomik-0.b~/b/c");
        std::fs::create_dir_all(&inside).unwrap();
        let slot = inside.parent().and_then(Path::parent).unwrap();
        std::fs::set_permissions(slot, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let opened = sys::open_folder(sys::CWD, inside.as_os_str()).unwrap();
        assert_eq!(slots_above(&path_by_steps(opened.as_fd())).len(), 1);
        let opened = sys::open_folder(sys::CWD, home.path().as_os_str()).unwrap();
        assert_eq!(slots_above(&path_by_steps(opened.as_fd())).len(), 0);
    }
}
