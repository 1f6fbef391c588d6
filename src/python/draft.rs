//! The guards of new versions: what `File`, `Folder` and `Entry` have in common.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::convert::{self, PathArg, StartFolder};
use super::guard::{Ending, Guard, Kind};
use super::interrupt::{Detached, detached};
use super::members::{Members, Membership};
use super::options::Given;
use super::streams::{Layers, Streams};
use crate::checkpoint::Checkpoint;
use crate::draft::Draft;
use crate::guard::sealed;
use crate::options::Options;

/// What one guard was asked for.
pub(super) struct Request<D> {
    pub(super) path: PathArg,
    at: StartFolder,
    pub(super) options: Options<D>,
    /// How the body's streams are opened, of a file.
    pub(super) layers: Option<Layers>,
    /// The group that it is to be published with.
    group: Option<Arc<Guard<Members>>>,
}

impl<D> Request<D> {
    pub(super) fn new(path: PathArg, given: Given, group: Option<&Arc<Guard<Members>>>) -> PyResult<Self> {
        let (dir_fd, options) = (given.dir_fd, Options::from_settings(given.settings()?));
        let at = Python::attach(|py| StartFolder::of_destination(py, dir_fd, &path))?;
        Ok(Self { path, at, options, layers: None, group: group.cloned() })
    }
}

/// A new version whose body is running.
pub(super) struct Staged {
    pub(super) draft: Draft,
    streams: Option<Streams>,
    membership: Option<Membership>,
}

impl Staged {
    /// Closes what the body got, with nothing more written.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        self.streams.as_ref().map_or(Ok(()), |streams| streams.discard(py, self.draft.file().as_fd()))
    }

    /// Where it is built; `None` for an unnamed file.
    pub(super) fn path(&self) -> Option<PathBuf> {
        if self.streams.is_some() { self.draft.staging_path() } else { Some(self.draft.shown.clone()) }
    }
}

impl<D: sealed::Guard> Kind for Request<D> {
    type Open = Staged;

    fn title(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("{} of {}", D::NAME, self.path.object.bind(py).repr()?))
    }

    fn open(&self, guard: &Bound<'_, PyAny>) -> PyResult<(Self::Open, Py<PyAny>)> {
        let py = guard.py();
        let at = self.at.as_fd();
        let create =
            |checkpoint: Checkpoint| D::create_with(&self.options, at, &self.path.path, checkpoint).map(D::into_draft);
        let (draft, raised) = detached(py, create);
        raised?;
        let draft = draft.map_err(|error| convert::error(py, &error, &[&self.path]))?;
        let enter = |group| Membership::enter(py, group, &draft.destination, &self.path);
        let membership = self.group.as_ref().map(enter).transpose()?;
        let (streams, given) = if let Some(layers) = &self.layers {
            let (streams, given) = Streams::open(py, draft.file().as_fd(), layers, &self.path)?;
            (Some(streams), given)
        } else {
            (None, draft.shown.as_path().into_pyobject(py)?.unbind())
        };
        Ok((Staged { draft, streams, membership }, given))
    }

    fn end(&self, py: Python<'_>, staged: Self::Open, ending: Ending) -> (bool, PyResult<()>) {
        if ending == Ending::Rollback {
            let discarded = staged.discard(py);
            let rolled_back = convert::rolled_back(py, discard(py, staged.draft));
            return (false, discarded.and(rolled_back));
        }
        let Staged { draft, streams, membership } = staged;
        if let Err(error) = streams.map_or(Ok(()), |streams| streams.close(py)) {
            let (_, raised) = discard(py, draft);
            return (false, raised.and_then(|()| Err(self.named(py, error)?)));
        }
        match membership {
            Some(membership) => (false, membership.add(py, &self.path, |group| group.add_draft(draft))),
            None => {
                convert::committed(py, detached(py, |checkpoint| D::commit_draft(draft, checkpoint)), &[&self.path])
            }
        }
    }

    fn abandon(&self, py: Python<'_>, staged: Self::Open) {
        staged.discard(py).unwrap_or_else(|error| error.write_unraisable(py, None));
        py.detach(|| drop(staged.draft));
    }
}

/// Discards a draft, and lets go of it without the GIL.
fn discard(py: Python<'_>, mut draft: Draft) -> Detached<crate::Result<()>> {
    detached(py, move |checkpoint| draft.discard(checkpoint))
}

impl<D> Request<D> {
    /// Gives the error of a last flush, which names no file of its own, the path.
    fn named(&self, py: Python<'_>, error: PyErr) -> PyResult<PyErr> {
        let value = error.value(py);
        if value.getattr_opt("filename")?.is_some_and(|name| name.is_none()) {
            value.setattr("filename", self.path.object.bind(py))?;
        }
        Ok(error)
    }
}

impl<D: sealed::Guard> Guard<Request<D>> {
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.kind.path.object)?;
        let visited = self.try_look(|staged| staged.streams.as_ref().map_or(Ok(()), |streams| streams.traverse(visit)));
        visited.unwrap_or(Ok(()))
    }
}

/// Declares the Python class of a new version.
macro_rules! draft {
    (
        $(#[$doc:meta])* $class:ident;
        $(#[$commit:meta])* commit;
        $($own:tt)*
    ) => {
        $crate::python::guard::context_manager! {
            $(#[$doc])*
            $class($crate::python::guard::Guard<$crate::python::draft::Request<$crate::$class>>) {
                $(#[$commit])*
                ///
                /// Raises:
                ///     RuntimeError: The guard is not open, or belongs to a parent process.
                ///     OSError: The commit failed; nothing was published unless the error's `committed` is true.
                fn commit(&self, py: Python<'_>) -> PyResult<()> {
                    self.0.end_now(py, $crate::python::guard::Ending::Commit)
                }

                /// Discards the new version now; the end of the body then does nothing.
                ///
                /// Raises:
                ///     RuntimeError: The guard is not open, or belongs to a parent process.
                fn rollback(&self, py: Python<'_>) -> PyResult<()> {
                    self.0.end_now(py, $crate::python::guard::Ending::Rollback)
                }

                #[getter]
                fn destination(&self) -> &std::path::Path {
                    &self.0.kind.path.path
                }

                #[getter]
                fn staging(&self, py: Python<'_>) -> Option<std::path::PathBuf> {
                    self.0.look(py, $crate::python::draft::Staged::path).flatten()
                }

                #[getter]
                fn committed(&self, py: Python<'_>) -> bool {
                    self.0.is_committed(py)
                }

                fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                    self.0.repr(py)
                }

                fn __traverse__(&self, visit: pyo3::gc::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
                    self.0.traverse(&visit)
                }

                fn __clear__(&self) {
                    Python::attach(|py| self.0.abandon(py));
                }

                $($own)*
            }
        }
    };
}

pub(super) use draft;
