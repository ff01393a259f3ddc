//! One run of the program: from the arguments to the exit code, with what commands share in between.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::CommandFactory;
use copal_engine::own::OwnPlace;
use copal_engine::{Context, Monitor, known_keys};
use copal_store::Backend;
use copal_store::config::config_names;
use copal_store::entropy::OsEntropy;
use copal_store::keys::Credential;
use copal_store::local::LocalBackend;
use copal_store::repository::Repository;
use serde_json::json;

use crate::arguments::{Arguments, GlobalArguments};
use crate::environment::{Environment, SystemClock};
use crate::exit_code::{ExitCode, Explanation, ProgramError, explain, is_closed_pipe};
use crate::interrupt::Interrupt;
use crate::output::{Format, Output, Paint, wants_colour};
use crate::password::{Ask, CURRENT, CredentialFlags, file_of, obtain, without_question};
use crate::progress::{ProgressMonitor, say};
use crate::shown::{json as shown_json, lines, sentence};
use crate::{commands, keyring, place};

/// Runs the program.
pub(crate) fn run(words: &[OsString]) -> ExitCode {
    let json = words.iter().any(|word| word == "--json");
    if words.len() <= 1 {
        // The parser alone would count a variable as an argument and only complain.
        let _ = write!(io::stderr().lock(), "{}", Arguments::command().render_help());
        return ExitCode::Usage;
    }
    let arguments = match Arguments::parse(words) {
        Ok(arguments) => arguments,
        Err(error) => return not_parsed(&error, json),
    };
    let operation = commands::operation(&arguments.command);
    let mut invocation = Invocation::new(arguments.global);
    let only_reports = commands::only_reports(&arguments.command);
    let delivers = commands::delivers(&arguments.command);
    if only_reports {
        invocation.output.is_report();
    }
    let outcome = commands::run(arguments.command, &mut invocation);
    invocation.monitor.finish();
    let flushed = invocation.output.finish();
    let flushed = match (&outcome, flushed) {
        (Ok(_), Err(error)) if only_reports => {
            say(&format!("copal: the command has done its work; only its report could not be written: {error}"));
            Ok(())
        }
        (_, flushed) => flushed,
    };
    match outcome.and_then(|exit| flushed.map(|()| exit).map_err(anyhow::Error::from)) {
        Ok(exit) => exit,
        Err(error) if is_closed_pipe(&error) && !delivers => ExitCode::Done,
        Err(error) => {
            let explanation = explain(&error, operation);
            report(&explanation, json);
            explanation.exit
        }
    }
}

fn report(explanation: &Explanation, json: bool) {
    let Explanation { code, message, hint, .. } = explanation;
    if json {
        // Written by hand for the order of its fields.
        let [code, message, hint] = [code, message.as_str(), hint.as_str()].map(|text| json!(text));
        say(&shown_json(&format!("{{\"error\":{{\"code\":{code},\"message\":{message},\"hint\":{hint}}}}}")));
    } else {
        let is_coloured = io::stderr().is_terminal() && wants_colour();
        let (begin, end) = if is_coloured { (Paint::Red.code(), "\x1b[0m") } else { ("", "") };
        say(&format!("{begin}copal: {end}{}", sentence(message)));
        say(&format!("  {}", sentence(hint)));
    }
}

/// Help and version are no errors, everything else of the parser is wrong usage.
fn not_parsed(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        // A reader of the help who has gone misses nothing.
        let _ = error.print();
        return ExitCode::Done;
    }
    if json {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let hint = "see `copal --help`, or `copal COMMAND --help`".to_owned();
        report(&Explanation { exit: ExitCode::Usage, code: "usage".into(), message, hint }, true);
    } else {
        match lines(&error.render().to_string()) {
            Cow::Borrowed(_) => drop(error.print()),
            // What was typed hides something: it is shown, without colours.
            Cow::Owned(shown) => say(shown.trim_end()),
        }
    }
    ExitCode::Usage
}

/// What every command is given.
pub(crate) struct Invocation {
    pub(crate) global: GlobalArguments,
    pub(crate) environment: Environment,
    pub(crate) output: Output,
    pub(crate) monitor: Arc<ProgressMonitor>,
    interrupt: Interrupt,
}

impl Invocation {
    pub(crate) fn new(global: GlobalArguments) -> Self {
        let format = if global.json { Format::Json } else { Format::Text };
        Self {
            environment: Environment::of_process(),
            output: Output::new(format),
            monitor: Arc::new(ProgressMonitor::new(global.progress, global.json)),
            interrupt: Interrupt::default(),
            global,
        }
    }

    /// The folder that `--repo` names.
    pub(crate) fn repository_folder(&self) -> Result<PathBuf, ProgramError> {
        place::local_folder(self.global.repo.as_deref())
    }

    /// The repository, where it opens without a question and without a command that may ask one. Says nothing
    /// and ends nothing that was interrupted.
    pub(crate) fn open_silently(&self) -> anyhow::Result<Option<Context>> {
        let folder = self.repository_folder()?;
        let backend = self.backend_at(&folder)?;
        if let Some(repository) = self.unlocked(&backend)? {
            return Ok(Some(self.context(repository)));
        }
        let Some(credential) = without_question(&CredentialFlags::from(&self.global), CURRENT)? else {
            return Ok(None);
        };
        Ok(Some(self.context(self.open_at(backend, &credential)?)))
    }

    /// Ends what interrupted deploys have left, then opens the repository.
    pub(crate) fn open(&self) -> anyhow::Result<Context> {
        self.open_for(Run::Real)
    }

    /// The same for a command that may be a dry run: that ends nothing, and says what would be ended.
    pub(crate) fn open_for(&self, run: Run) -> anyhow::Result<Context> {
        match run {
            Run::Real => self.recover(),
            Run::Dry => self.say_what_is_left(),
        }
        let folder = self.repository_folder()?;
        let backend = self.backend_at(&folder)?;
        if let Some(repository) = self.unlocked(&backend)? {
            self.interrupt.arm()?;
            return Ok(self.context(repository));
        }
        let credential = self.credential(Ask::Once)?;
        self.interrupt.arm()?;
        Ok(self.context(self.open_at(backend, &credential)?))
    }

    /// Opens a repository whose keys continue those that this machine has seen.
    pub(crate) fn open_at(
        &self,
        backend: Arc<dyn Backend>,
        credential: &Credential,
    ) -> copal_engine::Result<Repository> {
        known_keys::open(self.environment.state_folder.as_deref(), backend, Arc::new(OsEntropy), credential)
    }

    /// Storage at a folder that has a repository. Nobody should type a password for a place where nothing is.
    pub(crate) fn backend_at(&self, folder: &Path) -> anyhow::Result<Arc<LocalBackend>> {
        let backend = Arc::new(LocalBackend::new(folder));
        let [config, copy] = config_names();
        match backend.stat(&config).or_else(|error| backend.stat(&copy).map_err(|_| error)) {
            Ok(_) => Ok(backend),
            Err(copal_store::Error::Missing { .. }) => Err(not_a_repository(folder).into()),
            Err(_) if folder.metadata().is_ok_and(|found| !found.is_dir()) => Err(not_a_repository(folder).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The repository as `copal unlock` left it open; flags that name a password or key come before it.
    /// Whatever is wrong with what the kernel keeps, the password opens.
    fn unlocked(&self, backend: &Arc<LocalBackend>) -> copal_engine::Result<Option<Repository>> {
        let global = &self.global;
        if global.password_file.is_some() || global.password_command.is_some() || global.key_file.is_some() {
            return Ok(None);
        }
        let kept = Repository::peek_id(&**backend).ok().and_then(|id| keyring::get(id).ok()?);
        let Some(unlocked) = kept else { return Ok(None) };
        match self.open_at(Arc::clone(backend) as Arc<dyn Backend>, &Credential::Stretched(unlocked)) {
            Err(error @ copal_engine::Error::KeysWentBack { .. }) => Err(error),
            opened => Ok(opened.ok()),
        }
    }

    /// The flag that signals set.
    pub(crate) fn interrupt_flag(&self) -> Arc<std::sync::atomic::AtomicBool> {
        self.interrupt.flag()
    }

    /// What opens the repository.
    pub(crate) fn credential(&self, ask: Ask) -> Result<Credential, ProgramError> {
        obtain(&CredentialFlags::from(&self.global), CURRENT, ask)
    }

    /// From now on signals ask the engine to stop.
    pub(crate) fn arm_interrupt(&self) -> Result<(), ProgramError> {
        self.interrupt.arm()
    }

    /// What the engine needs of the world.
    pub(crate) fn context(&self, repository: Repository) -> Context {
        Context {
            repository,
            clock: Arc::new(SystemClock::new()),
            monitor: Arc::clone(&self.monitor) as Arc<dyn Monitor>,
            cache_folder: self.environment.cache_folder.clone(),
            memory: None,
            state_folder: self.environment.state_folder.clone(),
            own_places: self.own_places(),
            interrupt: self.interrupt.flag(),
            threads: self.global.threads,
            host: self.environment.host.clone(),
            user: self.environment.user.clone(),
            program: concat!("copal ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// What opens the repository, and where it is: no command may write there.
    fn own_places(&self) -> Vec<OwnPlace> {
        let mut places = Vec::new();
        places.extend(self.repository_folder().ok().map(|folder| OwnPlace::new(OwnPlace::REPOSITORY, folder)));
        places.extend(file_of(&CredentialFlags::from(&self.global), CURRENT));
        places
    }

    /// Whether somebody can be asked.
    pub(crate) fn has_terminal(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// A question that nobody can answer is refused before any work is done for it.
    pub(crate) fn refuse_without_terminal(&self, question: &str) -> Result<(), ProgramError> {
        if self.has_terminal() {
            return Ok(());
        }
        let question = sentence(question);
        Err(ProgramError::usage(
            format!("{question} There is no terminal to answer at"),
            "add --yes to agree beforehand",
        ))
    }

    /// Asks a person; without one, `--yes` has to be given.
    pub(crate) fn confirm(&self, question: &str) -> Result<(), ProgramError> {
        self.refuse_without_terminal(question)?;
        let question = sentence(question);
        let mut answer = String::new();
        let _ = write!(io::stderr().lock(), "{question} [y/N] ");
        let asked = io::stdin().lock().read_line(&mut answer);
        asked.map_err(|error| ProgramError::file("reading the answer from", Path::new("the terminal"), error))?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(ProgramError::Declined),
        }
    }

    /// Ends what interrupted deploys and captures have left.
    pub(crate) fn recover(&self) {
        let Some(state_folder) = self.state_folder() else { return };
        self.say(copal_application::recover(state_folder), "interrupted work on applications could not be ended");
        // The command at hand may well not need it.
        self.say(copal_engine::deploy::recover(state_folder), "interrupted deploys could not be looked for");
    }

    /// The same without ending it.
    fn say_what_is_left(&self) {
        let Some(state_folder) = self.state_folder() else { return };
        let unknown = "interrupted work on applications could not be looked for";
        self.say(copal_application::outlook(state_folder), unknown);
        self.say(copal_engine::deploy::outlook(state_folder), "interrupted deploys could not be looked for");
    }

    fn say<E: std::fmt::Display>(&self, sentences: Result<Vec<String>, E>, failure: &str) {
        match sentences {
            Ok(sentences) => sentences.iter().for_each(|sentence| self.monitor.notice(sentence)),
            Err(error) => self.monitor.notice(&format!("{failure}: {error}")),
        }
    }

    /// The state folder; one that cannot be believed is named.
    fn state_folder(&self) -> Option<&Path> {
        if let Some(fault) = &self.environment.state_fault {
            self.monitor.notice(&format!("local state is not used: {fault}"));
        }
        self.environment.state_folder.as_deref()
    }
}

/// Whether a command does what it is asked for, or only says what it would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Real,
    Dry,
}

impl Run {
    /// As the flag `--dry-run` has it.
    pub(crate) fn of(dry_run: bool) -> Self {
        if dry_run { Self::Dry } else { Self::Real }
    }
}

fn not_a_repository(folder: &Path) -> copal_store::Error {
    copal_store::Error::NotARepository { place: folder.display().to_string() }
}
