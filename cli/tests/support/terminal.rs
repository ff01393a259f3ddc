//! The program at a terminal: a pseudo-terminal that `script` makes, questions and their answers.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{COPAL, Run, World};

/// A question that nobody asks fails a test after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a line of shell, `copal` being the program under test, at a terminal of 120 columns. Each answer is
/// typed once its question stands on the screen; `stdout` of the run is all that the screen showed.
#[track_caller]
pub fn at_terminal(world: &World, line: &str, variables: &[(&str, &str)], answers: &[(&str, &str)]) -> Run {
    let mut command = world.command(&[]);
    let program = command.get_program().to_owned();
    assert_eq!(program, COPAL);
    let line = format!("stty cols 120 rows 40; copal() {{ '{COPAL}' \"$@\"; }}; set -o pipefail; {line}");
    let shell = format!("exec bash -c {}", quoted(&line));
    command = with_environment(Command::new("script"), &command);
    command.args(["-qec", &shell, "/dev/null"]).env("TERM", "xterm").envs(variables.iter().copied());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("script is there");
    let mut keyboard = child.stdin.take().expect("piped");
    let mut screen = child.stdout.take().expect("piped");
    let (sender, shown) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = screen.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut all = Vec::new();
    let mut answered = 0;
    let begun = Instant::now();
    for (question, answer) in answers {
        while !String::from_utf8_lossy(&all[answered..]).contains(question) {
            let left = PATIENCE.checked_sub(begun.elapsed()).unwrap_or_default();
            match shown.recv_timeout(left) {
                Ok(bytes) => all.extend(bytes),
                Err(_) => panic!("{line}: not asked {question:?}: {}", String::from_utf8_lossy(&all)),
            }
        }
        answered = all.len();
        // The question stands before the echo is switched off; what is typed too early would be thrown away.
        thread::sleep(Duration::from_millis(150));
        keyboard.write_all(format!("{answer}\n").as_bytes()).expect("somebody reads");
    }
    for bytes in shown {
        all.extend(bytes);
    }
    drop(keyboard);
    let code = child.wait().expect("a child of ours").code().unwrap_or(-1);
    Run { code, stdout: all, stderr: String::new() }
}

/// A line of shell with the program under test as `copal`; a pipe fails with any of its parts.
pub fn in_shell(world: &World, line: &str) -> Run {
    let environment = world.command(&[]);
    let mut command = with_environment(Command::new("bash"), &environment);
    command.args(["-o", "pipefail", "-c", &format!("copal() {{ '{COPAL}' \"$@\"; }}; {line}")]);
    super::finish(command.stdin(Stdio::null()).output().expect("bash is there"))
}

fn with_environment(mut command: Command, like: &Command) -> Command {
    command.env_clear();
    for (name, value) in like.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.current_dir(like.get_current_dir().expect("every world has a folder"));
    command
}

fn quoted(line: &str) -> String {
    format!("'{}'", line.replace('\'', r"'\''"))
}
