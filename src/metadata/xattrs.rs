//! Extended attributes: which are kept, and how they are read and set.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

use super::acl::Acl;
use crate::destination::Destination;
use crate::sys::{self, errno};

pub(super) const ACCESS_ACL: &CStr = c"system.posix_acl_access";
pub(super) const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

/// Extended attributes and their values.
pub(super) type Xattrs = Vec<(CString, Vec<u8>)>;

pub(super) fn value<'a>(xattrs: &'a Xattrs, name: &CStr) -> Option<&'a [u8]> {
    xattrs.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.as_slice())
}

/// Does a replacing version keep this attribute? Notes of users, ACLs and security labels are kept; capabilities and
/// signatures (`security.capability`, `security.ima`, `security.evm`) are about the old content.
pub(super) fn is_kept(name: &CStr) -> bool {
    let bytes = name.to_bytes();
    bytes.starts_with(b"user.") || is_acl(name) || is_label(name)
}

pub(super) fn is_acl(name: &CStr) -> bool {
    *name == *ACCESS_ACL || *name == *DEFAULT_ACL
}

pub(super) fn is_label(name: &CStr) -> bool {
    let bytes = name.to_bytes();
    bytes == b"security.selinux" || bytes == b"security.apparmor" || bytes.starts_with(b"security.SMACK64")
}

/// Reads those of the named attributes that are kept.
pub(super) fn read_kept(fd: BorrowedFd, names: Vec<CString>) -> io::Result<Xattrs> {
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

/// The names of extended attributes, of which there are none if `EIO` is the answer of `another` file, too: rclone has
/// no attributes, and answers `EIO` of every file. On local filesystems `EIO` stays a failure.
pub(super) fn listed(
    destination: &Destination,
    names: io::Result<Vec<CString>>,
    another: BorrowedFd,
) -> io::Result<Vec<CString>> {
    let failed = |names: &io::Result<Vec<CString>>| matches!(names, Err(error) if errno(error) == libc::EIO);
    let has_none = failed(&names) && destination.slots().domain().is_some() && failed(&sys::list_xattrs_of(another));
    if has_none { Ok(Vec::new()) } else { names }
}

/// Sets an attribute, unless this is not permitted: some places ask for more rights than writing, `security.*` and
/// `trusted.*` ask for root. A label that the security module does not know is left out as well.
pub(super) fn set_where_permitted(fd: BorrowedFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    match sys::set_xattr(fd, name, value) {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EACCES | libc::EOPNOTSUPP) => Ok(()),
        Err(error) if errno(&error) == libc::EINVAL && is_label(name) => Ok(()),
        other => other,
    }
}

/// Sets an ACL; false if this is not permitted, or the filesystem does not understand it.
pub(super) fn set_acl(fd: BorrowedFd, name: &CStr, acl: &Acl) -> io::Result<bool> {
    match sys::set_xattr(fd, name, &acl.value()) {
        Err(error) if matches!(errno(&error), libc::EPERM | libc::EACCES | libc::EOPNOTSUPP | libc::EINVAL) => {
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

/// Has this file an access ACL, or this folder a default ACL?
pub(crate) fn has_acl(fd: BorrowedFd) -> io::Result<bool> {
    Ok(sys::list_xattrs_of(fd)?.iter().any(|name| is_acl(name)))
}
