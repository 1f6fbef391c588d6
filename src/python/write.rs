//! `write_bytes` and `write_text`: a whole file in one call.

use std::os::fd::AsFd;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::convert::{self, PathArg, StartFolder};
use super::guard::Guard;
use super::interrupt::detached;
use super::members::{Members, work};
use super::options::{ALONE, Given, MEMBER, TEXT};
use crate::checkpoint::Checkpoint;
use crate::options::Options;
use crate::sys::{self, Memory};

/// Writes a whole file in one call: the fastest way.
///
/// Args:
///     path: The destination.
///     data: Any object with the buffer protocol: bytes, bytearray, memoryview, mmap, numpy arrays.
///     overwrite, durability, permissions, preserve, follow_symlinks, backup, tmp_dir, dir_fd: As for `file`.
///
/// Raises:
///     BufferError: `data` is not contiguous.
///     TypeError: `data` is no buffer.
///     OSError: As for `file`; a full disk leaves the old version.
///
/// Durability: as for `file`.
/// Source: open(2) O_TMPFILE, write(2), linkat(2), rename(2), fsync(2).
///
/// Example:
///     >>> atomik.write_bytes("data.bin", b"\x00\x01")
#[pyfunction]
#[pyo3(signature = (path, data, **options),
       text_signature = "(path, data, *, overwrite=False, durability='full', permissions=None, preserve=True, follow_symlinks=False, backup=None, tmp_dir=None, dir_fd=None)")]
pub(super) fn write_bytes(
    py: Python<'_>,
    path: PathArg,
    data: &Bound<'_, PyAny>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    let given = Given::read("write_bytes", options, &[MEMBER, ALONE, &["overwrite", "tmp_dir"]])?;
    write(py, &path, &Content::of(data)?, given, None)
}

/// Writes a whole text file in one call.
///
/// Args:
///     path: The destination.
///     text: What to write.
///     encoding, errors, newline: As for `open`.
///     overwrite, durability, permissions, preserve, follow_symlinks, backup, tmp_dir, dir_fd: As for `file`.
///
/// Raises:
///     UnicodeEncodeError: The encoding has no bytes for a character; nothing was touched.
///     OSError: As for `file`.
///
/// Durability: as for `file`.
/// Source: open(2) O_TMPFILE, write(2), linkat(2), rename(2), fsync(2).
///
/// Example:
///     >>> atomik.write_text("greeting.txt", "hello\n", encoding="utf-8")
#[pyfunction]
#[pyo3(signature = (path, text, **options),
       text_signature = "(path, text, *, encoding=None, errors=None, newline=None, overwrite=False, durability='full', permissions=None, preserve=True, follow_symlinks=False, backup=None, tmp_dir=None, dir_fd=None)")]
pub(super) fn write_text(
    py: Python<'_>,
    path: PathArg,
    text: &Bound<'_, PyString>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    let given = Given::read("write_text", options, &[MEMBER, ALONE, TEXT, &["overwrite", "tmp_dir"]])?;
    write(py, &path, &Content::encoded(text, &given)?, given, None)
}

/// What is to be written, with its owner.
pub(super) enum Content<'py> {
    Buffer(PyUntypedBuffer),
    Text(Bound<'py, PyString>),
}

impl<'py> Content<'py> {
    /// Any object with the buffer protocol.
    pub(super) fn of(data: &Bound<'py, PyAny>) -> PyResult<Self> {
        if data.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("a bytes-like object is required, not 'str': see write_text"));
        }
        let buffer = if let Ok(buffer) = PyUntypedBuffer::get(data) {
            buffer
        } else {
            // Numbers of ctypes, numpy's dates and the like cannot describe their items: `write` copies them.
            let copy = data.py().import("io")?.call_method0("BytesIO")?;
            copy.call_method1("write", (data,))?;
            PyUntypedBuffer::get(&copy.call_method0("getbuffer")?)?
        };
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("the buffer is not C-contiguous"));
        }
        Ok(Self::Buffer(buffer))
    }

    /// Text, as `open` would write it.
    pub(super) fn encoded(text: &Bound<'py, PyString>, given: &Given) -> PyResult<Self> {
        let (encoding, errors, newline) =
            (given.encoding.as_deref(), given.errors.as_deref(), given.newline.as_deref());
        let plain = matches!(newline, None | Some("" | "\n")) && errors.is_none_or(|errors| errors == "strict");
        if plain && matches!(encoding, Some("utf-8" | "utf8" | "UTF-8")) {
            // The text keeps its UTF-8 form for as long as it lives.
            text.to_str()?;
            return Ok(Self::Text(text.clone()));
        }
        // open's own layer does what open does: locale, byte order marks, newlines, error handlers.
        let io = text.py().import("io")?;
        let bytes = io.call_method0("BytesIO")?;
        let wrapper = io.getattr("TextIOWrapper")?.call1((&bytes, encoding, errors, newline))?;
        wrapper.call_method1("write", (text,))?;
        wrapper.call_method0("flush")?;
        Self::of(&bytes.call_method0("getvalue")?)
    }

    /// Where it is.
    fn memory(&self) -> PyResult<Memory<'_>> {
        match self {
            #[expect(unsafe_code, reason = "PyO3 has no view of a buffer whose items may be anything")]
            // SAFETY: the buffer is contiguous, and its exporter leaves it in place until it is released, which is not
            // before the end of this borrow.
            Self::Buffer(buffer) => Ok(unsafe { Memory::new(buffer.buf_ptr().cast(), buffer.len_bytes()) }),
            Self::Text(text) => Ok(text.to_str()?.as_bytes().into()),
        }
    }
}

/// How much is written between two looks for Ctrl-C.
const CHUNK: usize = 64 << 20;

/// Writes a whole file, alone or as a member of a group.
pub(super) fn write(
    py: Python<'_>,
    path: &PathArg,
    content: &Content<'_>,
    given: Given,
    group: Option<&Guard<Members>>,
) -> PyResult<()> {
    let start = StartFolder::of_destination(py, given.dir_fd, path)?;
    let options = Options::<crate::File>::from_settings(given.settings()?);
    let (at, target, memory) = (start.as_fd(), &path.path, content.memory()?);
    let fill = |file: &std::fs::File, checkpoint: Checkpoint| fill(file, memory, checkpoint);
    if let Some(group) = group {
        return work(py, group, path, |group, checkpoint| group.write_with(&options, at, target, fill, checkpoint));
    }
    convert::committed(py, detached(py, |checkpoint| options.write_with(at, target, fill, checkpoint)), &[path]).1
}

/// Writes all of a memory range, with looks for Ctrl-C.
fn fill(file: &std::fs::File, mut memory: Memory, checkpoint: Checkpoint) -> std::io::Result<()> {
    loop {
        let (chunk, rest) = memory.split(CHUNK);
        sys::write_all(file.as_fd(), chunk)?;
        if rest.is_empty() {
            return Ok(());
        }
        memory = rest;
        checkpoint()?;
    }
}
