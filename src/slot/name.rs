//! The names of slots and locks.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Longer names are shortened: `.atomik-NNNNN.` and 120 bytes fit the shortest limit in use (143, eCryptfs).
const LONGEST: usize = 120;

/// The name of slot `n` (or of the lock: `lock`) of a destination.
pub(crate) fn name(n: &str, destination: &OsStr) -> OsString {
    let bytes = destination.as_bytes();
    let mut name = format!(".atomik-{n}.").into_bytes();
    if bytes.len() <= LONGEST {
        name.extend_from_slice(bytes);
    } else {
        // Cut between characters: some filesystems refuse broken UTF-8.
        let keep = LONGEST - 17;
        let keep = match std::str::from_utf8(bytes) {
            Ok(text) => (0..=keep).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0),
            Err(_) => keep,
        };
        name.extend_from_slice(&bytes[..keep]);
        name.extend_from_slice(format!("~{:016x}", fnv1a(bytes)).as_bytes());
    }
    OsString::from_vec(name)
}

/// FNV-1a, 64 bits: the same in every process and release, since slots are found by name.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Is this the name of a slot?
pub(crate) fn is_name(name: &OsStr) -> bool {
    number_of(name).is_some()
}

/// The number of a slot.
pub(crate) fn number_of(name: &OsStr) -> Option<u32> {
    let rest = name.as_bytes().strip_prefix(b".atomik-")?;
    let digits = &rest[..rest.iter().position(|byte| *byte == b'.')?];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The destination, or what a long name of one was shortened to, if this is the name of a slot or a lock.
pub(crate) fn destination_of(name: &OsStr) -> Option<OsString> {
    let rest = name.as_bytes().strip_prefix(b".atomik-")?;
    let dot = rest.iter().position(|byte| *byte == b'.')?;
    let (kind, destination) = (&rest[..dot], &rest[dot + 1..]);
    let known = is_name(name) || kind == b"lock" || is_random(kind);
    (known && !destination.is_empty()).then(|| OsString::from_vec(destination.to_vec()))
}

/// Is this the kind of a slot whose name is nobody else's, since folders cannot be locked here?
fn is_random(kind: &[u8]) -> bool {
    kind.len() == 17 && kind[0] == b'r' && kind[1..].iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened_between_characters_and_stays_unique() {
        let long = OsString::from("ä".repeat(127));
        let short = name("0", &long);
        assert!(short.len() <= 255 && short.to_str().is_some());
        assert_ne!(short, name("0", OsStr::new(&"ä".repeat(126))));
        assert_eq!(name("7", OsStr::new("data")), ".atomik-7.data");
    }
}
