//! The command line as plain values. Nothing here opens, reads or asks for anything.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};

use crate::commands::{
    completions, copy, create, delete, demo, deploy, diff, dump, export, find, forget, gc, import, init, key, list,
    lock, ls, man, options, pin, restore, serve, show, stats, status, tag, token, unlock, unpin, verify, watchdog,
};
use crate::quantities;

/// Snapshots of files and databases: encrypted, deduplicated, verified, put back as they were.
#[derive(Debug, Parser)]
#[command(
    name = "copal",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  copal init --repo /srv/backup                    make a repository
  copal -r /srv/backup create monday /srv/data     take a snapshot of a folder
  copal -r /srv/backup list                        see what is there
  copal -r /srv/backup restore monday /srv/data    put back what is missing or differs
  copal -r /srv/backup deploy monday /srv/data     make it equal to the snapshot; asks before that
  copal demo                                       see all of it at work in a folder of its own

Exit codes:
  0 done, 1 failed, 2 wrong usage, 3 done but some source files could not be read,
  10 no repository there, 11 busy, 12 wrong password or key, 13 written by a newer version,
  68 permission, 69 something does not verify, 78 deadline passed,
  79 deploy failed and the target is as it was, 86 create failed, 130 interrupted"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command, before or after it.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArguments {
    /// The repository: a folder, or file:///…
    #[arg(short, long, global = true, env = "COPAL_REPO", hide_env_values = true,
        value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: Option<OsString>,
    /// File whose content is the password (one newline at its end does not count) [env: COPAL_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Command, given to the shell, that prints the password [env: COPAL_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub(crate) password_command: Option<OsString>,
    /// File of 32 random bytes, instead of a password [env: COPAL_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// File whose content is the password of a bundle [env: COPAL_BUNDLE_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) bundle_password_file: Option<PathBuf>,
    /// File of applications and defaults [env: COPAL_CONFIG; default: copal.toml here, or of the user]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How to show progress on stderr
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressKind,
    /// Worker threads; 0: as many as there are processors
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = quantities::any::<usize>)]
    pub(crate) threads: usize,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressKind {
    /// A bar on a terminal, nothing in a pipe
    #[default]
    Auto,
    /// A bar
    Bar,
    /// JSON lines on stderr
    Json,
    /// Nothing
    None,
}

/// Of every command but the two that show the options of all, in their place.
const WHERE_OPTIONS_ARE: &str = "Options of every command, such as --repo and --json: `copal help options`";

impl Arguments {
    /// Reads the command line. Only who gets no further is shown help, for which every command has to be
    /// built.
    pub(crate) fn parse(words: &[OsString]) -> Result<Self, clap::Error> {
        let with_help = || Self::with_short_help().try_get_matches_from(words).err();
        Self::try_parse_from(words).map_err(|error| with_help().unwrap_or(error))
    }

    /// The command line with help of its own for each command: what all share is shown by `copal --help` and
    /// `copal help options` alone.
    pub(crate) fn with_short_help() -> clap::Command {
        fn shorten(command: clap::Command, shared: &BTreeSet<clap::Id>) -> clap::Command {
            if command.get_name() == "options" {
                return command;
            }
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            command
                .mut_args(|argument| if shared.contains(argument.get_id()) { argument.hide(true) } else { argument })
                .after_help(format!("{WHERE_OPTIONS_ARE}\n\n{examples}"))
                .mut_subcommands(|command| shorten(command, shared))
        }
        let mut command = Self::command();
        // Only then do the commands below know what all share.
        command.build();
        let global = command.get_arguments().filter(|argument| argument.is_global_set());
        let shared: BTreeSet<clap::Id> = global.map(|argument| argument.get_id().clone()).collect();
        command.mut_subcommands(|command| shorten(command, &shared))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Arguments),
    Create(create::Arguments),
    #[command(alias = "snapshots")]
    List(list::Arguments),
    Show(show::Arguments),
    Ls(ls::Arguments),
    #[command(alias = "cat")]
    Dump(dump::Arguments),
    Diff(diff::Arguments),
    Deploy(deploy::Arguments),
    Restore(restore::Arguments),
    #[command(alias = "check")]
    Verify(verify::Arguments),
    Delete(delete::Arguments),
    Forget(forget::Arguments),
    #[command(alias = "prune")]
    Gc(gc::Arguments),
    Tag(tag::Arguments),
    Pin(pin::Arguments),
    Unpin(unpin::Arguments),
    Find(find::Arguments),
    Export(export::Arguments),
    Import(import::Arguments),
    Copy(copy::Arguments),
    Key(key::Arguments),
    Unlock(unlock::Arguments),
    Lock(lock::Arguments),
    Stats(stats::Arguments),
    Status(status::Arguments),
    #[command(hide = true)]
    Watchdog(watchdog::Arguments),
    #[command(hide = true)]
    Options(options::Arguments),
    Serve(serve::Arguments),
    Token(token::Arguments),
    Demo(demo::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: the command line is what `docs/guide/reference.md` says. Method: clap's own check, and parsing.

    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = command.get_name();
            assert!(help.contains("Examples:\n  copal"), "{name} has no example");
            for line in help.lines().filter(|line| line.starts_with("  copal ")) {
                let words = line.trim().split("  ").next().unwrap();
                assert!(!words.ends_with('…'), "{name}: {line}");
            }
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "{name} would be wrapped: {line}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for words in [
            &["copal", "-r", "/r", "--json", "--progress", "json", "list"][..],
            &["copal", "list", "-r", "/r", "--json", "--progress=json"],
            &["copal", "--json", "list", "--repo", "/r", "--progress", "json"],
            &["copal", "--json", "key", "--progress", "json", "list", "--repo=/r"],
        ] {
            let global = Arguments::try_parse_from(words).unwrap().global;
            assert_eq!(global.repo.as_deref(), Some("/r".as_ref()), "{words:?}");
            assert!(global.json);
            assert_eq!(global.progress, ProgressKind::Json);
        }
    }

    #[test]
    fn words_of_other_tools_are_understood() {
        for (words, ours) in [
            (&["copal", "snapshots"][..], "List"),
            (&["copal", "cat", "monday", "a"], "Dump"),
            (&["copal", "check"], "Verify"),
            (&["copal", "prune"], "Gc"),
        ] {
            let command = Arguments::try_parse_from(words).unwrap().command;
            assert!(format!("{command:?}").starts_with(ours), "{words:?}: {command:?}");
        }
    }

    #[test]
    fn what_all_commands_share_is_shown_once() {
        let help = |words: &[&str]| {
            let command = Arguments::with_short_help();
            command.try_get_matches_from([&["copal"], words].concat()).unwrap_err().to_string()
        };
        for whole in [help(&["--help"]), help(&["help", "options"]), help(&["options", "--help"])] {
            assert!(whole.contains("Global options") && whole.contains("--password-command"), "{whole}");
        }
        for short in [help(&["create", "--help"]), help(&["help", "key", "add"]), help(&["list", "-h"])] {
            assert!(!short.contains("Global options") && !short.contains("--password-command"), "{short}");
            assert_eq!(short.matches("copal help options").count(), 1, "{short}");
        }
        let matches = Arguments::with_short_help()
            .try_get_matches_from(["copal", "key", "--json", "add", "-r", "/r", "--label", "x"])
            .unwrap();
        assert!(Arguments::from_arg_matches(&matches).unwrap().global.json, "hidden is not gone");
    }
}
