//! Goal: `docs/guide/reference.md` says what the program understands, no less and no more. Method: its
//! section of commands is made from their definition; exit codes, words of errors and keys of `copal.toml`
//! are read from the page and compared. `COPAL_WRITE_DOCS=1` writes the section of commands instead. The
//! fields of JSON documents are compared by `cli/tests/json_shapes.rs`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory};
use copal_application::config::keys::{self, TableKind};
use copal_engine::verdict::Reason;

const BEGIN: &str = "<!-- commands: made by `COPAL_WRITE_DOCS=1 cargo test --bin copal reference`, not by hand -->";
const END: &str = "<!-- /commands -->";

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/reference.md")
}

fn page() -> String {
    fs::read_to_string(place()).unwrap()
}

/// The lines below a heading, up to the next of its rank or above.
fn section(page: &str, heading: &str) -> String {
    let rank = heading.chars().take_while(|&c| c == '#').count();
    let ends = |line: &&str| !(line.starts_with('#') && line.chars().take_while(|&c| c == '#').count() <= rank);
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let text: Vec<&str> = lines.take_while(ends).collect();
    assert!(!text.is_empty(), "the page has no section {heading:?}");
    text.join("\n")
}

/// What stands in backticks in the first cell of each row of a section's tables.
fn first_cells(section: &str) -> BTreeSet<String> {
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_command_and_option_is_in_the_reference() {
    let mut program = crate::arguments::Arguments::command();
    program.build();
    let mut made = String::new();
    let everywhere: Vec<&Arg> = program.get_arguments().filter(|argument| argument.is_global_set()).collect();
    writeln!(made, "### Options of every command\n\nBefore or after the command's name.\n").unwrap();
    table(&mut made, everywhere.into_iter());
    let known: BTreeSet<&str> = program.get_arguments().map(|argument| argument.get_id().as_str()).collect();
    for command in program.get_subcommands() {
        describe(&mut made, command, &known);
    }
    let page = page();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for commands");
    let (written, after) = rest.split_once(END).expect("the place has an end");
    let made = format!("\n\n{}\n\n", made.trim_end());
    if std::env::var_os("COPAL_WRITE_DOCS").is_some() {
        fs::write(place(), format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
        return;
    }
    for (written, made) in written.lines().zip(made.lines()) {
        assert_eq!(written, made, "docs/guide/reference.md is stale: {BEGIN}");
    }
    assert_eq!(written, made, "docs/guide/reference.md is stale: {BEGIN}");
}

/// A command and what is below it.
fn describe(made: &mut String, command: &Command, above: &BTreeSet<&str>) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = command.get_bin_name().expect("it was built");
    writeln!(made, "### {name}\n").unwrap();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let aliases: Vec<String> = command.get_all_aliases().map(|alias| format!("`{alias}`")).collect();
    let also = if aliases.is_empty() { String::new() } else { format!(" Also called {}.", aliases.join(", ")) };
    writeln!(made, "{about}.{also}\n\n    {usage}\n", about = about.trim_end_matches('.')).unwrap();
    let own = |argument: &&Arg| !argument.is_hide_set() && !above.contains(argument.get_id().as_str());
    table(made, command.get_arguments().filter(own).filter(|argument| argument.get_id() != "help"));
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for part in help.split("\n\n") {
        let (examples, remark): (Vec<&str>, Vec<&str>) =
            part.lines().partition(|line| line.starts_with("  copal ") || *line == "Examples:");
        for example in examples.iter().filter(|line| line.starts_with(' ')) {
            writeln!(made, "  {example}").unwrap();
        }
        if !examples.is_empty() {
            writeln!(made).unwrap();
        }
        if !remark.is_empty() {
            writeln!(made, "{}\n", remark.join("\n")).unwrap();
        }
    }
    let mut known = above.clone();
    known.extend(command.get_arguments().map(|argument| argument.get_id().as_str()));
    for below in command.get_subcommands() {
        describe(made, below, &known);
    }
}

/// A row for each argument.
fn table<'a>(made: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let mut rows = String::new();
    for argument in arguments {
        let values: Vec<String> =
            argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
        let takes = argument.get_action().takes_values();
        let mut written = Vec::new();
        written.extend(argument.get_short().map(|short| format!("-{short}")));
        written.extend(argument.get_long().map(|long| format!("--{long}")));
        let mut written = written.join("`, `");
        if argument.is_positional() {
            written = values.join(" ");
        } else if takes {
            written = format!("{written} {}", values.join(" "));
        }
        let mut says = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        let options = argument.get_possible_values();
        if takes && !options.is_empty() {
            let option = |value: &clap::builder::PossibleValue| match value.get_help() {
                Some(help) => format!("`{}` ({help})", value.get_name()),
                None => format!("`{}`", value.get_name()),
            };
            let shown = options.iter().filter(|value| !value.is_hide_set()).map(option);
            write!(says, ": {}", shown.collect::<Vec<_>>().join(", ")).unwrap();
        }
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if takes && !argument.is_hide_default_value_set() && !defaults.is_empty() {
            write!(says, " (default: `{}`)", defaults.join(" ")).unwrap();
        }
        if let Some(variable) = argument.get_env() {
            write!(says, " \\[env: {}\\]", variable.to_string_lossy()).unwrap();
        }
        writeln!(rows, "| `{written}` | {says} |").unwrap();
    }
    if !rows.is_empty() {
        writeln!(made, "| | |\n|---|---|\n{rows}").unwrap();
    }
}

#[test]
fn every_exit_code_and_word_of_errors_is_in_the_reference() {
    let page = page();
    let codes = section(&page, "## Exit codes");
    let codes = first_cells(codes.split("\n### ").next().unwrap());
    let written: BTreeSet<u8> = codes.iter().map(|cell| cell.parse().unwrap()).collect();
    let known: BTreeSet<u8> = (0..=255).filter(|&code| of_this_program(code)).collect();
    assert_eq!(written, known);

    // What the engine says, and what only this program says.
    let program = include_str!("exit_code.rs");
    let own = program.split("fn program(").nth(1).unwrap().split("#[cfg(test)]").next().unwrap();
    let own = own.split('"').skip(1).step_by(2).filter(|text| is_word(text)).map(str::to_owned);
    let words: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.name().to_owned()).chain(own).collect();
    assert_eq!(first_cells(&section(&page, "### Words of errors")), words);
}

fn of_this_program(code: u8) -> bool {
    use crate::exit_code::ExitCode;
    ExitCode::of_number(code.into()) as u8 == code
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && text != "failed"
}

#[test]
fn every_key_of_the_configuration_is_in_the_reference() {
    let page = page();
    for kind in TableKind::ALL {
        let made = keys::reference(kind);
        assert!(page.contains(&made), "docs/guide/reference.md should have for {kind:?}:\n{made}");
    }
    let every = page.split("## Keys of copal.toml").nth(1).expect("the page has a section of keys");
    let rows = |text: &str| text.lines().filter(|line| line.starts_with("| `")).count();
    let made: usize = TableKind::ALL.into_iter().map(|kind| rows(&keys::reference(kind))).sum();
    assert_eq!(rows(every), made, "the page has keys that nothing reads");
}
