//! What a commit answers.

use crate::error::Error;

/// A commit that succeeded, and what it could not clean up.
///
/// Cleaning up never fails a commit: what cannot be removed stays as an orphan, which the next writer
/// to the same destination tries again.
#[derive(Debug)]
pub struct Committed {
    leftover: Option<Error>,
}

impl Committed {
    pub(crate) fn new(leftover: Option<Error>) -> Self {
        Self { leftover }
    }

    /// Why something was left behind, if it was.
    #[must_use]
    pub fn leftover(&self) -> Option<&Error> {
        self.leftover.as_ref()
    }
}
