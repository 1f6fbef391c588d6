//! `Checkpoint`: a function that long work calls between two steps, so that its caller can stop the work.

use std::io;

/// Is called now and then in long work; an error stops the work.
pub(crate) type Checkpoint<'a> = &'a mut dyn FnMut() -> io::Result<()>;

/// Is the checkpoint of callers that cannot be interrupted.
#[allow(clippy::unnecessary_wraps, reason = "it is a checkpoint")]
pub(crate) fn go_on() -> io::Result<()> {
    Ok(())
}
