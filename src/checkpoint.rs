//! `Checkpoint`: a function that long work calls between two steps, so that its caller can stop the work.

use std::io;

/// A function that long work calls between two steps; its error stops the work.
pub(crate) type Checkpoint<'a> = &'a mut dyn FnMut() -> io::Result<()>;

/// The checkpoint of callers that cannot be interrupted.
#[allow(clippy::unnecessary_wraps, reason = "a checkpoint has a result")]
pub(crate) fn go_on() -> io::Result<()> {
    Ok(())
}
