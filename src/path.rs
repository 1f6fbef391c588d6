//! Splits a path as the calls of `rename(2)` need it, and lists names in an error.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Hint, Result};

/// Splits a path into its parent and its last component, and says whether slashes followed. Paths that no rename can
/// name (`/`, `.`, `..`) are refused, as `rename(2)` refuses them.
pub(crate) fn split(path: &Path) -> Result<(&OsStr, &OsStr, bool)> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&0) {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "embedded null byte");
        return Err(Error::new("reading the path", path, error));
    }
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let start = bytes[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    match &bytes[start..end] {
        b"" if bytes.is_empty() => Err(Error::errno("reading the path", path, libc::ENOENT).hint(Hint::EmptyPath)),
        b"" | b"." | b".." => {
            Err(Error::errno("reading the path", path, libc::EBUSY).kind_is(ErrorKind::Busy).hint(Hint::NoName))
        }
        name => {
            let parent = if start == 0 { b"." } else { &bytes[..start] };
            Ok((OsStr::from_bytes(parent), OsStr::from_bytes(name), end < bytes.len()))
        }
    }
}

/// The first `most` of some names, and the number of the others.
pub(crate) fn listed(names: &[impl AsRef<Path>], most: usize) -> String {
    let mut told: Vec<_> = names.iter().take(most).map(|name| name.as_ref().display().to_string()).collect();
    if names.len() > most {
        told.push(format!("{} more", names.len() - most));
    }
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Option<(&str, &str, bool)> {
        let (parent, name, slash) = split(Path::new(path)).ok()?;
        Some((parent.to_str()?, name.to_str()?, slash))
    }

    #[test]
    fn a_path_that_no_rename_can_name_is_refused() {
        for path in ["", "/", "//", ".", "..", "a/.", "a/..", "a/../", "a\0b"] {
            assert_eq!(parts(path), None, "{path:?}");
        }
    }

    #[test]
    fn a_path_is_split_at_its_last_name() {
        assert_eq!(parts("a"), Some((".", "a", false)));
        assert_eq!(parts("/a"), Some(("/", "a", false)));
        assert_eq!(parts("x//a//"), Some(("x//", "a", true)));
        assert_eq!(parts("../a/"), Some(("../", "a", true)));
    }
}
