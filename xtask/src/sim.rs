//! Runs the simulated world for longer than the tests do, or one seed of it again.

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask sim [--minutes N] [--first SEED]    a death at every effect, then meetings and worlds from SEED on, N minutes each (10)
cargo xtask sim --seed SEED                     one world again";

/// Seeds below are those of the usual test run.
const FIRST: &str = "1000";

pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (mut minutes, mut first, mut seed) = ("10".to_owned(), FIRST.to_owned(), None);
    while let Some(argument) = arguments.next() {
        let mut number = || match arguments.next() {
            Some(number) if number.parse::<u64>().is_ok() => Ok(number),
            _ => bail!("{argument} needs a number\n{HELP}"),
        };
        match argument.as_str() {
            "--minutes" => minutes = number()?,
            "--first" => first = number()?,
            "--seed" => seed = Some(number()?),
            _ => bail!("{HELP}"),
        }
    }
    let test = |name: &str, environment: &[(&str, &str)]| {
        let arguments = ["test", "--locked", "--package", "copal-sim", "--test", name, "--", "--nocapture"];
        super::cargo(&arguments, environment)
    };
    if let Some(seed) = seed {
        return test("swarm", &[("COPAL_SIM_SEED", &seed)]);
    }
    test("sweep", &[("COPAL_SIM_MINUTES", &minutes)])?;
    let environment = [("COPAL_SIM_MINUTES", &*minutes), ("COPAL_SIM_FIRST", &*first)];
    test("meetings", &environment)?;
    test("swarm", &environment)
}
