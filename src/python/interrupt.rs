//! Ctrl-C in long work: the checkpoint of the core asks Python for pending signals.

use pyo3::prelude::*;

use crate::checkpoint::Checkpoint;

/// What the work has answered, and the exception of a signal handler that has stopped it, which comes first.
pub(super) type Detached<T> = (T, PyResult<()>);

/// Runs work of the core without the GIL; a signal handler's exception stops it at the next checkpoint.
pub(super) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce(Checkpoint) -> T + Send) -> Detached<T> {
    let mut raised = Ok(());
    #[expect(clippy::redundant_closure_for_method_calls, reason = "the method alone is not general enough")]
    let signals = || Python::try_attach(|py| py.check_signals()).unwrap_or(Ok(()));
    let answer = py.detach(|| {
        work(&mut || match signals() {
            Ok(()) => Ok(()),
            Err(exception) => {
                raised = Err(exception);
                Err(std::io::ErrorKind::Interrupted.into())
            }
        })
    });
    (answer, raised)
}
