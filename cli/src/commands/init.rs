//! `copal init`: makes a repository.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use copal_engine::Clock;
use copal_engine::known_keys;
use copal_store::config::{CipherSuite, CutRule, Parameters};
use copal_store::entropy::OsEntropy;
use copal_store::keys::{StretchCost, faster_suite};
use copal_store::local::LocalBackend;
use copal_store::parity::PARITY_PERCENT_MAX;
use copal_store::repository::{InitOptions, Repository};
use serde_json::json;

use crate::environment::SystemClock;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::password::Ask;
use crate::quantities;
use crate::shown::size;

/// Makes a repository in a new or empty folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal init --repo /srv/backup                                     asks for a password
  copal init --repo /srv/backup --password-file /etc/copal/password
  copal init --repo /srv/backup --key-file /etc/copal/key           32 random bytes, no password
  copal init --repo /srv/backup --compression-level 6 --pack-size 32MiB

Without its password or key nobody can read a repository. Keep it somewhere else, too.")]
pub(crate) struct Arguments {
    /// The cipher; without it the one that this machine does faster
    #[arg(long, value_enum, value_name = "SUITE")]
    suite: Option<Suite>,
    /// Level of zstd, 1 to 19
    #[arg(long, default_value_t = Parameters::default().compression_level, value_name = "LEVEL",
          value_parser = quantities::whole::<i32>(1, 19))]
    compression_level: i32,
    /// Largest pack file
    #[arg(long, default_value_t = ByteSize::b(u64::from(Parameters::default().pack_bytes_max)), value_name = "SIZE",
          value_parser = quantities::size)]
    pack_size: ByteSize,
    /// Parity beside each pack, in percent: heals damage up to this share; 0 is none
    #[arg(long, default_value_t = 0, value_name = "PERCENT",
          value_parser = quantities::whole::<u8>(0, u64::from(PARITY_PERCENT_MAX)))]
    parity: u8,
    /// How content is cut into chunks
    #[arg(long, value_enum, default_value_t, value_name = "RULE")]
    cut: Cut,
    /// Name of the first key slot
    #[arg(long, default_value = "first", value_name = "TEXT")]
    label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// AES-256-GCM
    #[value(name = "aes256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Cut {
    /// A secret AES over a small window
    #[default]
    AesWindow,
    /// FastCDC with a secret table
    Fastcdc,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let folder = invocation.repository_folder()?;
    let parameters = parameters(arguments)?;
    refuse_within_another(&folder)?;
    let credential = invocation.credential(Ask::Twice)?;
    let suite = match arguments.suite {
        Some(Suite::Aes256Gcm) => CipherSuite::Aes256Gcm,
        Some(Suite::ChaCha20Poly1305) => CipherSuite::ChaCha20Poly1305,
        None => measured_suite()?,
    };
    let options = InitOptions {
        parameters,
        suite,
        stretch: StretchCost::default(),
        slot_label: arguments.label.clone(),
        created_seconds: SystemClock::new().now().seconds,
    };
    let backend = Arc::new(LocalBackend::new(&folder));
    let repository = Repository::init(backend, Arc::new(OsEntropy), &credential, &options)?;
    known_keys::remember(invocation.environment.state_folder.as_deref(), &repository);
    report(&repository, &folder, arguments.suite.is_none(), invocation)?;
    Ok(ExitCode::Done)
}

/// What is put into the folder of a repository looks like a part of it to some, like rubbish to others.
fn refuse_within_another(folder: &Path) -> Result<(), ProgramError> {
    let absolute = std::path::absolute(folder).map_err(|error| ProgramError::file("finding", folder, error))?;
    let there = absolute.ancestors().skip(1).find_map(|above| above.canonicalize().ok());
    for above in there.iter().flat_map(|above| above.ancestors()) {
        if Repository::peek_id(&LocalBackend::new(above)).is_ok() {
            return Err(ProgramError::usage(
                format!("{} lies in the repository {}", folder.display(), above.display()),
                "choose a folder outside of it",
            ));
        }
    }
    Ok(())
}

fn parameters(arguments: &Arguments) -> Result<Parameters, ProgramError> {
    let pack_bytes_max = u32::try_from(arguments.pack_size.as_u64()).unwrap_or(u32::MAX);
    let parameters = Parameters {
        cut_rule: match arguments.cut {
            Cut::AesWindow => CutRule::AesWindow,
            Cut::Fastcdc => CutRule::FastCdc2020,
        },
        compression_level: arguments.compression_level,
        pack_bytes_max,
        parity_percent: arguments.parity,
        ..Parameters::default()
    };
    parameters.validate().map_err(|_| {
        ProgramError::usage(
            format!("a pack size of {} cannot be used", arguments.pack_size),
            "choose one from 1MiB to 1GiB, for example --pack-size 64MiB",
        )
    })?;
    Ok(parameters)
}

/// The cipher that seals faster here.
pub(super) fn measured_suite() -> anyhow::Result<CipherSuite> {
    Ok(faster_suite(&mut |work| {
        let begin = Instant::now();
        work();
        u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    })?)
}

fn report(
    repository: &Repository,
    folder: &std::path::Path,
    measured: bool,
    invocation: &mut Invocation,
) -> Result<(), ProgramError> {
    let config = repository.config();
    let parameters = &config.parameters;
    let suite = match config.suite {
        CipherSuite::Aes256Gcm => "aes256-gcm",
        CipherSuite::ChaCha20Poly1305 => "chacha20-poly1305",
    };
    let cut = match parameters.cut_rule {
        CutRule::AesWindow => "aes-window",
        CutRule::FastCdc2020 => "fastcdc",
    };
    let output = &mut invocation.output;
    if output.is_json() {
        return output.document(&json!({
            "repository": config.repository.to_string(),
            "place": folder.to_string_lossy(),
            "suite": suite,
            "cut": cut,
            "compression_level": parameters.compression_level,
            "pack_bytes_max": parameters.pack_bytes_max,
        }));
    }
    let place = output.name(folder.as_os_str().as_encoded_bytes());
    output.line([b"made a repository at ".as_slice(), &place].concat())?;
    output.figures(&[
        ("id", config.repository.to_string()),
        ("cipher", format!("{suite}{}", if measured { ", the faster one on this machine" } else { "" })),
        ("cut", cut.to_owned()),
        ("compression", format!("zstd level {}", parameters.compression_level)),
        ("packs", format!("up to {}", size(u64::from(parameters.pack_bytes_max)))),
    ])
}
