//! The names of slots, rooms and locks.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The beginning of all names that the library makes beside a destination.
const PREFIX: &[u8] = b".atomik-";

/// The beginning of the names of all releases. No destination may have such a name.
const RESERVED_PREFIX: &[u8] = b".atomik";

/// The end of all names that the library makes beside a destination: a glob for the destination's suffix does not find
/// them.
const SUFFIX: u8 = b'~';

/// How many bytes of a destination's name a slot's name has at most. The shortest limit of names in use is 143 bytes
/// (eCryptfs). The rest of the longest name (`.atomik-s`, sixteen digits, `-`, sixteen digits, `.` and `~`) leaves 99.
const MAX_DESTINATION: usize = 98;

/// The kinds of names that the library makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The slot of the first writer.
    Porch,
    /// The folder that holds the slots of this user's other writers.
    Room(u32),
    /// A slot of a random name, where something else has the names of porch and room.
    Spare(u64),
    /// The publish lock.
    Lock,
}

/// A name that the library has made, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) kind: Kind,
    /// The lock domain; `None` where locks reach everybody.
    pub(crate) domain: Option<u64>,
    /// The destination's name, or the shortened form of a long one.
    pub(crate) destination: OsString,
}

/// The name of this kind for a destination, in a lock domain.
pub(crate) fn name(kind: Kind, domain: Option<u64>, destination: &OsStr) -> OsString {
    let kind = match kind {
        Kind::Porch => "0".into(),
        Kind::Room(user) => format!("u{user}"),
        Kind::Spare(chance) => format!("s{chance:016x}"),
        Kind::Lock => "lock".into(),
    };
    match domain {
        None => compose(&kind, destination),
        Some(domain) => compose(&format!("{kind}-{domain:016x}"), destination),
    }
}

/// Does this release make such names?
pub(crate) fn is_ours(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX)
}

/// A name for a file or folder inside a slot that cannot be the destination's own name.
pub(crate) fn scratch(word: &str, destination: &OsStr) -> OsString {
    compose(word, destination)
}

/// The name of a slot in a room.
pub(super) fn in_room(chance: u64) -> OsString {
    format!("{chance:016x}").into()
}

/// Is this a name that no destination may have?
pub(crate) fn is_reserved(name: &OsStr) -> bool {
    name.as_bytes().starts_with(RESERVED_PREFIX)
}

fn compose(word: &str, destination: &OsStr) -> OsString {
    let bytes = destination.as_bytes();
    let mut name = [PREFIX, word.as_bytes(), b"."].concat();
    if bytes.len() <= MAX_DESTINATION {
        name.extend_from_slice(bytes);
    } else {
        // Cut between characters: some filesystems refuse broken UTF-8.
        let keep = MAX_DESTINATION - 17;
        let keep = match std::str::from_utf8(bytes) {
            Ok(text) => (0..=keep).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0),
            Err(_) => keep,
        };
        name.extend_from_slice(&bytes[..keep]);
        name.extend_from_slice(format!("~{:016x}", fnv1a(bytes)).as_bytes());
    }
    name.push(SUFFIX);
    OsString::from_vec(name)
}

/// FNV-1a, 64 bits: the same in every process and release, since slots are found by name.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Takes a name that the library makes apart; `None` for any other name.
pub(crate) fn parse(name: &OsStr) -> Option<Parsed> {
    let rest = name.as_bytes().strip_prefix(PREFIX)?.strip_suffix(&[SUFFIX])?;
    let dot = rest.iter().position(|byte| *byte == b'.')?;
    let (word, destination) = (std::str::from_utf8(&rest[..dot]).ok()?, &rest[dot + 1..]);
    let (kind, domain) = match word.split_once('-') {
        Some((kind, domain)) => (kind, Some(hexadecimal(domain)?)),
        None => (word, None),
    };
    let kind = match kind {
        "0" => Kind::Porch,
        "lock" => Kind::Lock,
        spare if spare.starts_with('s') => Kind::Spare(hexadecimal(&spare[1..])?),
        _ => {
            let digits = kind.strip_prefix('u').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            Kind::Room(digits.parse().ok()?)
        }
    };
    (!destination.is_empty()).then(|| Parsed { kind, domain, destination: OsString::from_vec(destination.to_vec()) })
}

fn hexadecimal(digits: &str) -> Option<u64> {
    let known = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    (digits.len() == 16 && digits.bytes().all(known)).then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened_between_characters_and_stays_unique() {
        let long = OsString::from("ä".repeat(127));
        let short = name(Kind::Spare(u64::MAX), Some(u64::MAX), &long);
        assert!(short.len() <= 143 && short.to_str().is_some());
        assert_ne!(short, name(Kind::Spare(u64::MAX), Some(u64::MAX), OsStr::new(&"ä".repeat(126))));
    }

    #[test]
    fn a_name_says_what_it_stands_for_and_has_no_suffix_of_the_destination() {
        let destination = OsStr::new("x.parquet");
        for kind in [Kind::Porch, Kind::Room(1000), Kind::Spare(7), Kind::Lock] {
            for domain in [None, Some(0xfeed)] {
                let name = name(kind, domain, destination);
                assert_eq!(parse(&name), Some(Parsed { kind, domain, destination: destination.into() }));
                assert_ne!(std::path::Path::new(&name).extension(), Some(OsStr::new("parquet")));
            }
        }
        for other in [".atomik-0.x", ".atomik-1.x~", ".atomik-u.x~", ".atomik-0-12.x~", ".atomik-0.~", "x~"] {
            assert_eq!(parse(OsStr::new(other)), None, "{other}");
        }
    }
}
