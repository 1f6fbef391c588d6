//! The one error type: which path, what was tried, what to do, and the whole `io::Error` kept.

mod hint;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use hint::{Hint, RUST, Words};

use crate::sys::errno;

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as a program can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The destination exists, and replacing it was not asked for.
    AlreadyExists,
    /// Staging and destination are on different mounts, the destination is in a lower layer of an overlay, or something is
    /// mounted inside the version that an update copies.
    CrossDevice,
    /// The filesystem (or kernel, or sandbox) lacks the system call that is needed.
    Unsupported,
    /// The destination is a mount point, a device, a FIFO or a socket, or a symlink that leads to one: these are never
    /// replaced. Or another program holds a lock that is needed, or changes the destination all the time.
    Busy,
    /// The version that the body started from, or the folder of the destination, has been replaced meanwhile.
    Conflict,
    /// A tool has left something beside the path that it was given: see [`Siblings`](crate::Siblings).
    Siblings,
    /// A sync failed; [`Error::committed`] says on which side of the publish.
    Durability,
    /// The guard was used in a forked child, which never owns its parent's staging.
    OtherProcess,
    /// Any other error of the system: see [`Error::raw_os_error`] and [`Error::operation`].
    Io,
}

/// An error of atomik: the operation, the paths, the error of the system and what to do about it.
///
/// `?` works in functions that return [`std::io::Result`], and keeps the errno. An [`std::io::Error`] has either an errno
/// or a message: [`described`](Error::described) keeps the message, and the path in it.
///
/// # Examples
/// ```
/// fn save(path: &std::path::Path) -> std::io::Result<()> {
///     atomik::write(path, "new")?;
///     Ok(())
/// }
///
/// fn save_and_say_where(path: &std::path::Path) -> std::io::Result<()> {
///     atomik::write(path, "new").map_err(atomik::Error::described)?;
///     Ok(())
/// }
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("p");
///
/// save(&path)?;
/// assert_eq!(save(&path).unwrap_err().raw_os_error(), Some(17)); // EEXIST
/// assert!(save_and_say_where(&path).unwrap_err().to_string().starts_with(&path.display().to_string()));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    path: PathBuf,
    path2: Option<PathBuf>,
    source: io::Error,
    hints: Vec<Hint>,
    committed: bool,
    leftover: Option<Error>,
}

impl Error {
    /// An error of the system during `operation` on `path`. Its kind follows from the errno where that means the same
    /// in every operation; [`kind_by_errno`](Self::kind_by_errno) and [`kind_is`](Self::kind_is) set the others.
    pub(crate) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let (source, hints) = match source.downcast::<Stays>() {
            Ok(Stays { path, error }) => (error, vec![Hint::Stays(path.display().to_string())]),
            Err(source) => (source, Vec::new()),
        };
        let kind = match errno(&source) {
            libc::EOPNOTSUPP | libc::ENOSYS => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        Self(Box::new(Inner {
            kind,
            operation,
            path: path.into(),
            path2: None,
            source,
            hints,
            committed: false,
            leftover: None,
        }))
    }

    /// The same from a bare errno.
    pub(crate) fn errno(operation: &'static str, path: &Path, errno: i32) -> Self {
        Self::new(operation, path, io::Error::from_raw_os_error(errno))
    }

    /// Sets the second path, as `rename(2)` has one.
    pub(crate) fn to(mut self, path2: &Path) -> Self {
        self.0.path2 = Some(path2.into());
        self
    }

    /// Says what to do about it.
    pub(crate) fn hint(mut self, hint: Hint) -> Self {
        self.0.hints = vec![hint];
        self
    }

    /// Says more about it.
    pub(crate) fn and_hint(mut self, more: Hint) -> Self {
        self.0.hints.push(more);
        self
    }

    /// Marks an error after which nothing is published any more.
    pub(crate) fn not_published(mut self) -> Self {
        self.0.committed = false;
        self
    }

    /// Sets the kind that the errno has where it is about what stands at the destination, or about moving something there.
    pub(crate) fn kind_by_errno(self) -> Self {
        match errno(&self.0.source) {
            libc::EEXIST | libc::ENOTEMPTY => self.kind_is(ErrorKind::AlreadyExists),
            libc::EXDEV => self.kind_is(ErrorKind::CrossDevice),
            libc::EBUSY => self.kind_is(ErrorKind::Busy),
            _ => self,
        }
    }

    /// Sets the kind.
    pub(crate) fn kind_is(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Marks an error that came after the publish.
    pub(crate) fn after_publish(mut self) -> Self {
        self.0.committed = true;
        self
    }

    /// Adds what could not be removed after it, unless that is known.
    pub(crate) fn with_leftover(mut self, leftover: Option<Error>) -> Self {
        self.0.leftover = self.0.leftover.or(leftover);
        self
    }

    /// Why something was left behind, if it was: the next writer tries again.
    #[must_use]
    pub fn leftover(&self) -> Option<&Error> {
        self.0.leftover.as_ref()
    }

    /// What a program can act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done, as the message says it: "publishing", "syncing the new version".
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The path that it is about: mostly the destination, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The second path of an operation on two.
    #[must_use]
    pub fn path2(&self) -> Option<&Path> {
        self.0.path2.as_deref()
    }

    /// True if the new version had been published before the error: it is visible, but (for a failed
    /// sync) a power cut may bring the old one back.
    #[must_use]
    pub fn committed(&self) -> bool {
        self.0.committed
    }

    /// The error of the system.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.0.source
    }

    /// The errno, if the system gave one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.source.raw_os_error()
    }

    /// The same as an [`io::Error`] with its message: path, cause and remedy. [`io::Error::get_ref`] gives this error back,
    /// and `raw_os_error` of the result is `None`: the errno is that of this error.
    #[must_use]
    pub fn described(self) -> io::Error {
        io::Error::new(self.0.source.kind(), self)
    }

    /// What was tried, what the system answered and what to do about it in Rust, without the paths.
    #[must_use]
    pub fn reason(&self) -> String {
        self.reason_in(&RUST)
    }

    /// The same in the words of a language.
    pub(crate) fn reason_in(&self, words: &Words) -> String {
        let said = format!("{} while {}", answer(&self.0.source), self.0.operation);
        let hints: Vec<_> = self.0.hints.iter().map(|hint| hint.text(words)).collect();
        if hints.is_empty() { said } else { format!("{said}: {}", hints.join("; ")) }
    }

    /// The whole message in the words of a language.
    pub(crate) fn message_in(&self, words: &Words) -> String {
        let to = self.path2().map_or_else(String::new, |path2| format!(" (to {})", path2.display()));
        format!("{}: {}{to}", self.path().display(), self.reason_in(words))
    }
}

/// What stays where it is, and why, inside the [`io::Error`] of cleaning up; [`Error::new`] unpacks it.
#[derive(Debug)]
pub(crate) struct Stays {
    pub(crate) path: PathBuf,
    pub(crate) error: io::Error,
}

impl From<Stays> for io::Error {
    fn from(stays: Stays) -> Self {
        io::Error::new(stays.error.kind(), stays)
    }
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for Stays {}

/// The system's words for an error, as `strerror(3)` has them, without Rust's " (os error N)".
pub(crate) fn answer(error: &io::Error) -> String {
    let mut answer = error.to_string();
    if let Some(end) = answer.find(" (os error ") {
        answer.truncate(end);
    }
    answer
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message_in(&RUST))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, committed, source, .. } = &*self.0;
        write!(f, "Error({kind:?}, committed: {committed}, {self}, {source:?})")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.source)
    }
}

/// Keeps the errno, and so no message of atomik's: see [`Error::described`]. Without an errno the message is kept.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        error.raw_os_error().map_or_else(|| error.described(), io::Error::from_raw_os_error)
    }
}
