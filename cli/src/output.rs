//! What a command says on stdout: lines and tables for people, one JSON document for programs. A reader who
//! goes away is no error: the rest is dropped, and the command still ends with its own exit code.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement};
use copal_engine::Error as EngineError;
use copal_source::Error as SourceError;
use serde::Serialize;

use crate::environment::variable;
use crate::exit_code::{ProgramError, THE_OUTPUT};
use crate::shown::{escaped, json};

/// For whom the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Standard output.
pub(crate) struct Output {
    format: Format,
    is_terminal: bool,
    is_coloured: bool,
    writer: BufWriter<Stdout>,
    closed: bool,
    keeps_errors: bool,
    /// The first error that was kept.
    failed: Option<io::Error>,
    /// Elements of the array under way.
    elements: u64,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Self {
            format,
            is_terminal,
            is_coloured: is_terminal && wants_colour(),
            writer: BufWriter::with_capacity(64 << 10, stdout),
            closed: false,
            keeps_errors: false,
            failed: None,
            elements: 0,
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// A line of text, bytes as they are.
    pub(crate) fn line(&mut self, text: impl AsRef<[u8]>) -> Result<(), ProgramError> {
        let written = self.writer.write_all(text.as_ref()).and_then(|()| self.writer.write_all(b"\n"));
        self.tolerate(written)
    }

    /// Labelled figures beneath a first line, the values in one column.
    pub(crate) fn figures(&mut self, figures: &[(&str, String)]) -> Result<(), ProgramError> {
        let width = figures.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        for (label, value) in figures {
            let label = self.painted(Paint::Dim, format!("{label:width$}").as_bytes());
            self.line([b"  ".as_slice(), &label, b"  ", value.as_bytes()].concat().trim_ascii_end())?;
        }
        Ok(())
    }

    /// The one JSON document.
    pub(crate) fn document(&mut self, document: &impl Serialize) -> Result<(), ProgramError> {
        let text = serde_json::to_string_pretty(document).map_err(|error| ProgramError::Output(error.into()))?;
        self.line(json(&text).as_bytes())
    }

    /// An element of a JSON array that is written as it comes, one line each; [`Self::end_array`] ends it.
    pub(crate) fn element(&mut self, element: &impl Serialize) -> Result<(), ProgramError> {
        let text = serde_json::to_string(element).map_err(|error| ProgramError::Output(error.into()))?;
        let text = json(&text);
        let before = if self.elements == 0 { "[\n" } else { ",\n" };
        self.elements += 1;
        let written = self.writer.write_all(before.as_bytes()).and_then(|()| self.writer.write_all(text.as_bytes()));
        self.tolerate(written)
    }

    /// Ends the array, which may have no elements.
    pub(crate) fn end_array(&mut self) -> Result<(), ProgramError> {
        let end = if self.elements == 0 { "[]" } else { "\n]" };
        self.elements = 0;
        self.line(end)
    }

    /// Name bytes: escaped on a terminal, as they are in a pipe.
    pub(crate) fn name(&self, bytes: &[u8]) -> Vec<u8> {
        if self.is_terminal { escaped(bytes).into_bytes() } else { bytes.to_vec() }
    }

    /// A table, its columns aligned.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), ProgramError> {
        let mut lines = table.lines().into_iter();
        let headings = lines.next().unwrap_or_default();
        self.line(self.painted(Paint::Bold, &headings))?;
        for (line, row) in lines.zip(&table.rows) {
            match Paint::of_mark(row.first()) {
                Some(paint) => self.line(self.painted(paint, &line))?,
                None => self.line(line)?,
            }
        }
        Ok(())
    }

    /// In colour on a terminal that wants it, else as it is.
    fn painted(&self, paint: Paint, text: &[u8]) -> Vec<u8> {
        if self.is_coloured && !text.is_empty() {
            [paint.code().as_bytes(), text, b"\x1b[0m"].concat()
        } else {
            text.to_vec()
        }
    }

    /// Nobody reads any more: a long listing may end.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Everything is out, or the error.
    pub(crate) fn finish(&mut self) -> Result<(), ProgramError> {
        let flushed = self.writer.flush();
        self.tolerate(flushed)?;
        self.failed.take().map_or(Ok(()), |error| Err(ProgramError::Output(error)))
    }

    /// From here on all that is written tells of work that is done: an error is kept for the end, and ends
    /// nothing.
    pub(crate) fn is_report(&mut self) {
        self.keeps_errors = true;
    }

    fn tolerate(&mut self, written: io::Result<()>) -> Result<(), ProgramError> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) if self.keeps_errors => {
                self.failed.get_or_insert(error);
                Ok(())
            }
            other => other.map_err(ProgramError::Output),
        }
    }
}

/// Bytes of a file or archive, straight through; here a reader who has gone is an error, which ends the copy.
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// An error of stdout in the middle of a callback of the engine.
pub(crate) fn engine_error(error: ProgramError) -> EngineError {
    let source = match error {
        ProgramError::Output(source) => source,
        other => io::Error::other(other.to_string()),
    };
    EngineError::Source(SourceError::Io { action: "writing", path: THE_OUTPUT.into(), source })
}

/// A reader who has gone, in the middle of a callback of the engine.
pub(crate) fn closed_error() -> EngineError {
    engine_error(ProgramError::Output(io::ErrorKind::BrokenPipe.into()))
}

/// A path in JSON; its bytes in hexadecimal too when they are no UTF-8.
#[derive(Debug, Serialize)]
pub(crate) struct JsonPath {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl JsonPath {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let path = String::from_utf8_lossy(bytes).into_owned();
        Self { path_hex: (path.as_bytes() != bytes).then(|| hex::encode(bytes)), path }
    }
}

/// How text stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Paint {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Red => "\x1b[31m",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
        }
    }

    /// Rows that begin with the mark of a difference.
    fn of_mark(cell: Option<&Vec<u8>>) -> Option<Self> {
        match cell?.as_slice() {
            b"+" => Some(Self::Green),
            b"-" => Some(Self::Red),
            b"M" => Some(Self::Yellow),
            _ => None,
        }
    }
}

/// What `NO_COLOR` (no-color.org) and a terminal without colours ask for.
pub(crate) fn wants_colour() -> bool {
    variable("NO_COLOR").is_none() && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of cells under headings.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Vec<u8>>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Vec<u8>>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// A line each, columns aligned by the width that a terminal gives their characters. Nothing is wrapped,
    /// cut off or framed, so that a line is a row for programs too.
    fn lines(&self) -> Vec<Vec<u8>> {
        let last = self.columns.len() - 1;
        // The last column may hold a path that is no text: it is appended as it is.
        let appended = self.columns[last].1 == Align::Left;
        let laid_out = if appended { last } else { last + 1 };
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.columns[..laid_out].iter().map(|(heading, _)| *heading));
        for row in &self.rows {
            table.add_row(row[..laid_out].iter().map(|cell| String::from_utf8_lossy(cell)));
        }
        for (number, (_, align)) in self.columns[..laid_out].iter().enumerate() {
            let alignment = if *align == Align::Right { CellAlignment::Right } else { CellAlignment::Left };
            let column = table.column_mut(number).expect("every heading has a column");
            column.set_padding((0, if number == last { 0 } else { 2 })).set_cell_alignment(alignment);
        }
        let heading = self.columns[last].0.as_bytes();
        let tails = std::iter::once(heading).chain(self.rows.iter().map(|row| row[last].as_slice()));
        let line = |(line, tail): (String, &[u8])| {
            let tail = if appended { tail } else { b"" };
            // Only fill goes: a path may well end with a blank of its own.
            if tail.is_empty() { line.trim_end().into() } else { [line.as_bytes(), tail].concat() }
        };
        table.lines().zip(tails).map(line).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("PATH", Align::Left)]);
        table.row(vec![b"a".to_vec(), b"100 MiB".to_vec(), "ž/x".into()]);
        table.row(vec!["später".into(), b"1 B".to_vec(), b"\xff".to_vec()]);
        let lines = table.lines();
        assert_eq!(lines[0], b"NAME       SIZE  PATH");
        assert_eq!(lines[1], "a       100 MiB  ž/x".as_bytes());
        assert_eq!(lines[2], ["später      1 B  ".as_bytes(), b"\xff"].concat());
    }

    #[test]
    fn wide_characters_take_two_places_and_figures_may_end_a_line() {
        let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right)]);
        table.row(vec!["日本".into(), b"1 B".to_vec()]);
        table.row(vec![b"a long name".to_vec(), b"100 MiB".to_vec()]);
        table.row(vec![b"x".to_vec(), Vec::new()]);
        let lines: Vec<String> = table.lines().into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert_eq!(lines, ["NAME            SIZE", "日本             1 B", "a long name  100 MiB", "x"]);
    }

    #[test]
    fn a_path_that_is_no_text_shows_its_bytes_too() {
        let json = |bytes: &[u8]| serde_json::to_string(&JsonPath::new(bytes)).unwrap();
        assert_eq!(json(b"a"), r#"{"path":"a"}"#);
        assert_eq!(json(b"\xff"), "{\"path\":\"\u{fffd}\",\"path_hex\":\"ff\"}");
    }
}
