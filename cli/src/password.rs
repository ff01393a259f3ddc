//! What opens the repository: from flags, the environment, or a question at the terminal, in this order.
//! Secrets live in memory that is wiped, and no message repeats one.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use copal_engine::own::OwnPlace;
use copal_source::process::without_secrets;
use copal_store::keys::Credential;
use zeroize::Zeroizing;

use crate::arguments::GlobalArguments;
use crate::environment::variable;
use crate::exit_code::ProgramError;

/// Longest password; what is longer is a wrong file.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// Where a credential comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CredentialSource {
    /// Named by a flag or a variable.
    PasswordFile(PathBuf),
    PasswordCommand(OsString),
    KeyFile(PathBuf),
    /// The value of a variable.
    Variable(&'static str),
    /// A question.
    Prompt,
}

/// What the flags of a command name.
#[derive(Clone, Debug, Default)]
pub(crate) struct CredentialFlags {
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) password_command: Option<OsString>,
    pub(crate) key_file: Option<PathBuf>,
}

/// The variables that stand in for the flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CredentialVariables {
    password: &'static str,
    password_file: &'static str,
    password_command: &'static str,
    key_file: &'static str,
}

/// Of the credential that opens the repository.
pub(crate) const CURRENT: CredentialVariables = CredentialVariables {
    password: "COPAL_PASSWORD",
    password_file: "COPAL_PASSWORD_FILE",
    password_command: "COPAL_PASSWORD_COMMAND",
    key_file: "COPAL_KEY_FILE",
};

/// Of one that is being added.
pub(crate) const NEW: CredentialVariables = CredentialVariables {
    password: "COPAL_NEW_PASSWORD",
    password_file: "COPAL_NEW_PASSWORD_FILE",
    password_command: "COPAL_NEW_PASSWORD_COMMAND",
    key_file: "COPAL_NEW_KEY_FILE",
};

/// Of the repository that is copied to.
pub(crate) const TARGET: CredentialVariables = CredentialVariables {
    password: "COPAL_TO_PASSWORD",
    password_file: "COPAL_TO_PASSWORD_FILE",
    password_command: "COPAL_TO_PASSWORD_COMMAND",
    key_file: "COPAL_TO_KEY_FILE",
};

/// The password of a bundle: the flag, then the variables, then a question. `None`: nobody gives one, and
/// nobody is there to ask.
pub(crate) fn bundle_password(file: Option<&Path>, ask: Ask) -> Result<Option<Zeroizing<Vec<u8>>>, ProgramError> {
    let named = file.map(Path::to_owned);
    let password = match (named, variable("COPAL_BUNDLE_PASSWORD"), variable("COPAL_BUNDLE_PASSWORD_FILE")) {
        (Some(file), ..) => read_password(&file)?,
        (None, Some(password), _) => Zeroizing::new(password.into_vec()),
        (None, None, Some(file)) => read_password(Path::new(&file))?,
        (None, None, None) if io::stdin().is_terminal() => ask_for("password of the bundle: ", ask)?,
        (None, None, None) => return Ok(None),
    };
    if password.is_empty() {
        return Err(ProgramError::usage("the bundle's password is empty", "an empty password protects nothing"));
    }
    Ok(Some(password))
}

/// How a password is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Once: a wrong one only fails to open.
    Once,
    /// Twice: a mistyped new one would lock its owner out.
    Twice,
}

impl From<&GlobalArguments> for CredentialFlags {
    fn from(global: &GlobalArguments) -> Self {
        Self {
            password_file: global.password_file.clone(),
            password_command: global.password_command.clone(),
            key_file: global.key_file.clone(),
        }
    }
}

/// The credential, from wherever it comes.
pub(crate) fn obtain(
    flags: &CredentialFlags,
    variables: CredentialVariables,
    ask: Ask,
) -> Result<Credential, ProgramError> {
    let credential = match choose(flags, variables, variable)? {
        CredentialSource::PasswordFile(path) => Credential::Password(read_password(&path)?),
        CredentialSource::PasswordCommand(command) => Credential::Password(run(&command)?),
        CredentialSource::KeyFile(path) => Credential::KeyFile(read_key(&path)?),
        CredentialSource::Variable(name) => {
            Credential::Password(Zeroizing::new(variable(name).unwrap_or_default().into_vec()))
        }
        CredentialSource::Prompt => Credential::Password(prompt(variables, ask)?),
    };
    match &credential {
        Credential::Password(password) if password.is_empty() => {
            Err(ProgramError::usage("the password is empty", "an empty password protects nothing: give another"))
        }
        _ => Ok(credential),
    }
}

/// The credential where nobody has to be asked for it, and no command is run that may ask.
pub(crate) fn without_question(
    flags: &CredentialFlags,
    variables: CredentialVariables,
) -> Result<Option<Credential>, ProgramError> {
    match choose(flags, variables, variable)? {
        CredentialSource::Prompt | CredentialSource::PasswordCommand(_) => Ok(None),
        CredentialSource::PasswordFile(path) | CredentialSource::KeyFile(path) if !path.is_file() => Ok(None),
        CredentialSource::PasswordFile(_) | CredentialSource::KeyFile(_) | CredentialSource::Variable(_) => {
            obtain(flags, variables, Ask::Once).map(Some)
        }
    }
}

/// The file that opens the repository, if it is one.
pub(crate) fn file_of(flags: &CredentialFlags, variables: CredentialVariables) -> Option<OwnPlace> {
    match choose(flags, variables, variable).ok()? {
        CredentialSource::PasswordFile(path) => Some(OwnPlace::new("the password file", path)),
        CredentialSource::KeyFile(path) => Some(OwnPlace::new("the key file", path)),
        CredentialSource::PasswordCommand(_) | CredentialSource::Variable(_) | CredentialSource::Prompt => None,
    }
}

/// Flags win over variables; two of the same rank contradict each other, but for a password beside a file of
/// it.
fn choose(
    flags: &CredentialFlags,
    variables: CredentialVariables,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<CredentialSource, ProgramError> {
    let mut named = Vec::new();
    named.extend(flags.password_file.clone().map(CredentialSource::PasswordFile));
    named.extend(flags.password_command.clone().map(CredentialSource::PasswordCommand));
    named.extend(flags.key_file.clone().map(CredentialSource::KeyFile));
    if named.len() > 1 {
        return Err(ProgramError::usage(
            "more than one of a password file, a password command and a key file is given",
            "give one of them",
        ));
    }
    if let Some(source) = named.pop() {
        return Ok(source);
    }
    let path = |name| variable(name).map(PathBuf::from);
    Ok(variable(variables.password)
        .map(|_| CredentialSource::Variable(variables.password))
        .or_else(|| path(variables.password_file).map(CredentialSource::PasswordFile))
        .or_else(|| variable(variables.password_command).map(CredentialSource::PasswordCommand))
        .or_else(|| path(variables.key_file).map(CredentialSource::KeyFile))
        .unwrap_or(CredentialSource::Prompt))
}

fn read_password(path: &Path) -> Result<Zeroizing<Vec<u8>>, ProgramError> {
    let failed = |error| ProgramError::file("reading the password file", path, error);
    limited(File::open(path).map_err(failed)?).map_err(failed).map(without_newline)
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, ProgramError> {
    let failed = |error| ProgramError::file("reading the key file", path, error);
    let bytes = limited(File::open(path).map_err(failed)?).map_err(failed)?;
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| {
        ProgramError::usage(
            format!("the key file {} has {} bytes; a key has 32", path.display(), bytes.len()),
            "make one with: head -c 32 /dev/urandom > FILE && chmod 600 FILE",
        )
    })?;
    Ok(Zeroizing::new(key))
}

fn run(command: &OsString) -> Result<Zeroizing<Vec<u8>>, ProgramError> {
    let failed = |detail: String| ProgramError::PasswordCommand(detail);
    let mut child = without_secrets(&mut Command::new("/bin/sh"))
        .arg("-c")
        .arg(command)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let printed = child.stdout.take().map(limited).transpose().map_err(|error| failed(error.to_string()))?;
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    Ok(without_newline(printed.unwrap_or_default()))
}

/// The buffer never grows, so no copy of the secret stays behind in freed memory.
fn limited(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX as usize + 1));
    from.take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {PASSWORD_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn without_newline(mut password: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if password.last() == Some(&b'\n') {
        password.pop();
        if password.last() == Some(&b'\r') {
            password.pop();
        }
    }
    password
}

fn prompt(variables: CredentialVariables, ask: Ask) -> Result<Zeroizing<Vec<u8>>, ProgramError> {
    if !io::stdin().is_terminal() {
        return Err(ProgramError::usage(
            "no password is given, and there is no terminal to ask at",
            format!(
                "set {}, {} or {}, or use the flags of the same names",
                variables.password, variables.password_file, variables.key_file
            ),
        ));
    }
    ask_for(if ask == Ask::Once { "password: " } else { "new password: " }, ask)
}

fn ask_for(first: &str, ask: Ask) -> Result<Zeroizing<Vec<u8>>, ProgramError> {
    let question = |text: &str| {
        rpassword::prompt_password(text)
            .map(|password| Zeroizing::new(password.into_bytes()))
            .map_err(|error| ProgramError::file("asking for a password at", Path::new("the terminal"), error))
    };
    match ask {
        Ask::Once => question(first),
        Ask::Twice => {
            let password = question(first)?;
            if *password != *question("the same again: ")? {
                return Err(ProgramError::usage("the two passwords differ", "run the command again"));
            }
            Ok(password)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: the order of `docs/guide/reference.md`. Method: the choice is a pure function of flags and
    //! variables.

    use super::*;

    #[track_caller]
    fn check(flags: &CredentialFlags, set: &[&'static str], expected: &CredentialSource) {
        let variable = |name: &str| set.contains(&name).then(|| "value".into());
        assert_eq!(choose(flags, CURRENT, variable).unwrap(), *expected);
    }

    #[test]
    fn flags_come_before_variables_and_those_before_a_question() {
        let none = CredentialFlags::default();
        let file = CredentialFlags { password_file: Some("f".into()), ..none.clone() };
        let all = ["COPAL_PASSWORD", "COPAL_PASSWORD_FILE", "COPAL_PASSWORD_COMMAND", "COPAL_KEY_FILE"];
        check(&file, &all, &CredentialSource::PasswordFile("f".into()));
        check(&none, &all, &CredentialSource::Variable("COPAL_PASSWORD"));
        check(&none, &all[1..], &CredentialSource::PasswordFile("value".into()));
        check(&none, &all[2..], &CredentialSource::PasswordCommand("value".into()));
        check(&none, &all[3..], &CredentialSource::KeyFile("value".into()));
        check(&none, &[], &CredentialSource::Prompt);
    }

    #[test]
    fn two_flags_contradict_each_other() {
        let flags = CredentialFlags {
            password_file: Some("f".into()),
            key_file: Some("k".into()),
            ..CredentialFlags::default()
        };
        assert!(choose(&flags, CURRENT, |_| None).is_err());
    }

    #[test]
    fn one_newline_at_the_end_does_not_count() {
        for (given, password) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a ", "a "), ("\n", "")] {
            assert_eq!(without_newline(Zeroizing::new(given.into())).as_slice(), password.as_bytes());
        }
    }

    #[test]
    fn a_command_must_succeed_and_its_output_is_the_password() {
        assert_eq!(run(&"printf 'se cret\n'".into()).unwrap().as_slice(), b"se cret");
        assert!(run(&"echo x; exit 3".into()).is_err());
        assert!(run(&"yes".into()).is_err());
    }
}
