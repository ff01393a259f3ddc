//! Where a server is: a connection string as `libpq` takes it, apart from the password in it.
//!
//! Arguments of a process can be read by everybody on the machine, its environment by the same user. So the
//! password goes to the server's programs by a password file that is in no folder: memory behind a descriptor
//! of this process, which they open by its path in `/proc`. Nothing of it is inherited, and it is gone with
//! this value.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use percent_encoding::percent_decode_str;
use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

use crate::{Error, Result};

/// What begins a URI; everything else with a `=` in it is a row of keywords.
const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// A connection string without secrets, and how the password reaches who connects.
#[derive(Debug)]
pub(super) struct Address {
    text: String,
    password: Option<PasswordFile>,
}

/// A file as `libpq` reads passwords from.
#[derive(Debug)]
struct PasswordFile(File);

/// What a connection string is made of.
#[derive(Default, PartialEq, Eq)]
struct Parts {
    /// Without the passwords.
    text: String,
    password: Option<String>,
    has_key_password: bool,
    database: Option<String>,
}

/// The database that a connection string names.
pub fn named_database(dsn: &str) -> Result<Option<String>> {
    Address::of(dsn)?;
    Ok(Parts::of(dsn).and_then(|parts| parts.database).filter(|name| !name.is_empty()))
}

impl Address {
    pub(super) fn of(dsn: &str) -> Result<Self> {
        let refused = |detail: &str| Error::Database {
            action: "connecting to",
            place: "the server of the connection string".into(),
            detail: detail.into(),
        };
        let parts = Parts::of(dsn).ok_or_else(|| refused("it is written neither as a URI nor as key=value"))?;
        if parts.has_key_password {
            return Err(refused(
                "sslpassword would be seen by all: put it into a service file, and name that by service=",
            ));
        }
        let file = parts.password.map(|password| {
            if password.contains(['\n', '\r', '\0']) {
                return Err(refused("a password with an end of a line cannot be in a password file"));
            }
            PasswordFile::of(&password).map_err(|error| refused(&format!("its password cannot be handed on: {error}")))
        });
        Ok(Self { text: parts.text, password: file.transpose()? })
    }

    /// The connection string, of this database or of the one that it names.
    pub(super) fn text(&self, database: Option<&str>) -> String {
        database.map_or_else(|| self.text.clone(), |name| with_database(&self.text, name))
    }

    /// Variables of a program that connects; a value of none takes the variable away.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![("PGCONNECT_TIMEOUT".to_owned(), "30".to_owned())];
        if let Some(PasswordFile(file)) = &self.password {
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            // An empty one counts as none; another one would go before the file.
            variables.extend([("PGPASSFILE".to_owned(), path), ("PGPASSWORD".to_owned(), String::new())]);
        }
        variables
    }
}

impl PasswordFile {
    fn of(password: &str) -> std::io::Result<Self> {
        let memory = memfd_create("copal", MemfdFlags::CLOEXEC)?;
        fchmod(&memory, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(memory);
        let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
        file.write_all(format!("*:*:*:*:{escaped}\n").as_bytes())?;
        Ok(Self(file))
    }
}

impl Parts {
    /// None for what `libpq` would not take; it is not said why, for the words of it may be secret.
    fn of(dsn: &str) -> Option<Self> {
        let uri = SCHEMES.iter().find_map(|scheme| Some((scheme, dsn.strip_prefix(scheme)?)));
        match uri {
            Some((scheme, rest)) => Self::of_uri(scheme, rest),
            None if !dsn.contains('=') => {
                Some(Self { text: pair("dbname", dsn), database: Some(dsn.to_owned()), ..Self::default() })
            }
            None => Self::of_keywords(dsn),
        }
    }

    /// Sorts options, as they were written, into what is secret and what is not.
    fn sort(options: Vec<(String, String, String)>) -> (Self, Vec<String>) {
        let mut parts = Self::default();
        let mut kept = Vec::new();
        for (key, value, written) in options {
            match key.as_str() {
                "password" => parts.password = Some(value),
                "sslpassword" => parts.has_key_password = true,
                _ => {
                    if key == "dbname" {
                        parts.database = Some(value);
                    }
                    kept.push((key, written));
                }
            }
        }
        // A password file that is named would go before ours.
        let has_password = parts.password.is_some();
        let kept = kept.into_iter().filter(|(key, _)| !(has_password && key == "passfile"));
        (parts, kept.map(|(_, written)| written).collect())
    }

    fn of_uri(scheme: &str, rest: &str) -> Option<Self> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
        let mut options = Vec::new();
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = place.split('/').next().unwrap_or_default();
        let place = match authority.split_once('@').and_then(|(user, _)| user.split_once(':')) {
            None => place.to_owned(),
            Some((user, password)) => {
                if !password.is_empty() {
                    options.push(("password".into(), decoded(password)?, String::new()));
                }
                format!("{user}{}", &place[user.len() + 1 + password.len()..])
            }
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=')?;
            options.push((decoded(key)?, decoded(value)?, option.to_owned()));
        }
        let database = place.split_once('/').map(|(_, name)| decoded(name));
        let (mut parts, kept) = Self::sort(options);
        if parts.database.is_none() {
            parts.database = database.flatten();
        }
        let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
        Some(Self { text: format!("{scheme}{place}{query}"), ..parts })
    }

    fn of_keywords(dsn: &str) -> Option<Self> {
        let mut options = Vec::new();
        let mut rest = dsn.trim_start();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let (value, after) = value_of(after.trim_start())?;
            let written = pair(key.trim_end(), &value);
            options.push((key.trim_end().to_owned(), value, written));
            rest = after.trim_start();
        }
        let (parts, kept) = Self::sort(options);
        Some(Self { text: kept.join(" "), ..parts })
    }
}

/// A value, bare or in quotes, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.push(letters.next()?.1),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            letter if letter.is_ascii_whitespace() && !quoted => return Some((value, &text[at..])),
            letter => value.push(letter),
        }
    }
    (!quoted).then_some((value, ""))
}

/// A keyword with its value, as `libpq` takes them.
fn pair(key: &str, value: &str) -> String {
    format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The connection string of one database of the same server.
fn with_database(text: &str, database: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://").filter(|_| SCHEMES.iter().any(|known| text.starts_with(known)))
    else {
        return format!("{text} {}", pair("dbname", database));
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let options: Vec<&str> =
        query.split('&').filter(|option| !option.is_empty() && !option.starts_with("dbname=")).collect();
    let name: String = database
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let query = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
    format!("{scheme}://{authority}/{name}{query}")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[track_caller]
    fn check(dsn: &str, text: &str, password: Option<&str>) {
        let parts = Parts::of(dsn).unwrap();
        assert_eq!((parts.text.as_str(), parts.password.as_deref()), (text, password), "{dsn}");
    }

    #[test]
    fn passwords_are_taken_out_of_keywords() {
        check("host=h user=u", "host='h' user='u'", None);
        check("host=h password=secret user=u", "host='h' user='u'", Some("secret"));
        check(r"password = 'a b\'c\\' host = h", "host='h'", Some("a b'c\\"));
        check(r"host=h password=back\\slash\ space", "host='h'", Some("back\\slash space"));
        check("password=one password='two' passfile=/p service=s", "service='s'", Some("two"));
        check("passfile=/p dbname='it\\'s'", "passfile='/p' dbname='it\\'s'", None);
        check("shop", "dbname='shop'", None);
    }

    #[test]
    fn passwords_are_taken_out_of_uris() {
        check("postgres://h/db", "postgres://h/db", None);
        check(
            "postgresql://u:s%3Acret%20@h:5,i:6/db?sslmode=require",
            "postgresql://u@h:5,i:6/db?sslmode=require",
            Some("s:cret "),
        );
        check("postgres://u@/db?host=%2Ftmp&password=a%26b&passfile=%2Fp", "postgres://u@/db?host=%2Ftmp", Some("a&b"));
        check("postgres://u:@h", "postgres://u@h", None);
        check("postgres://h:5432/a@b:c", "postgres://h:5432/a@b:c", None);
    }

    #[test]
    fn the_database_is_read_as_libpq_does() {
        for (dsn, database) in [
            ("shop", Some("shop")),
            ("host=h", None),
            ("host=h dbname='a b' user=u", Some("a b")),
            ("postgres://u@h:1/a%20b?sslmode=require", Some("a b")),
            ("postgres://h/a?dbname=c", Some("c")),
            ("postgres://u:p@h/", None),
            ("postgres://h", None),
            ("postgres:///a", Some("a")),
        ] {
            assert_eq!(named_database(dsn).unwrap().as_deref(), database, "{dsn}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_its_words() {
        for dsn in [
            "host=h secret",
            "password='open",
            "password=a\\",
            "postgres://h?secret",
            "postgres://u:%ff@h",
            "=",
            "sslpassword=secret",
        ] {
            let refused = Address::of(dsn).map(|address| format!("{address:?}"));
            let said = refused.err().map(|error| error.to_string());
            assert!(dsn == "=" || said.is_some_and(|said| !said.contains("secret") && !said.contains("open")), "{dsn}");
        }
        assert!(Address::of("password='two\nlines'").is_err());
    }

    #[test]
    fn another_database_of_the_same_server() {
        assert_eq!(with_database("host='h' dbname='a'", "it's"), "host='h' dbname='a' dbname='it\\'s'");
        assert_eq!(
            with_database("postgres://u@h/a?dbname=c&sslmode=require", "b c"),
            "postgres://u@h/b%20c?sslmode=require"
        );
        assert_eq!(with_database("postgres://h", "b"), "postgres://h/b");
    }

    #[test]
    fn the_password_is_in_a_file_that_only_the_user_reads() {
        let address = Address::of(r"password=a:b\\c").unwrap();
        let variables = address.environment();
        let path = &variables.iter().find(|(name, _)| name == "PGPASSFILE").unwrap().1;
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "*:*:*:*:a\\:b\\\\c\n");
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).unwrap()) & 0o777, 0o600);
        assert!(!variables.iter().any(|(_, value)| value.contains("a:b")) && !format!("{address:?}").contains("a:b"));
    }
}
