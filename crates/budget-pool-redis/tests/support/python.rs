//! EscrowMint's own Python client, fetched by pip into a folder of the build.

#![allow(dead_code)]

use std::path::PathBuf;
use std::process::Command;

/// The version that the tests and the bench run beside.
pub const VERSION: &str = "escrowmint==0.5.0";

/// Python that finds EscrowMint; or one line that says why there is none.
pub fn escrowmint(folder: PathBuf) -> Result<Python, String> {
    let folder = folder.join(VERSION);
    let python = Python { folder };
    if python.run("import escrowmint", &[]).is_ok() {
        return Ok(python);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
    let done = pip.arg(&python.folder).arg(VERSION).output();
    match done {
        Err(error) => return Err(format!("python3 cannot be run ({error})")),
        Ok(done) if !done.status.success() => {
            return Err("`python3 -m pip install escrowmint` fails".to_owned());
        }
        Ok(_) => {}
    }
    python.run("import escrowmint", &[]).map(|_| python)
}

pub struct Python {
    folder: PathBuf,
}

impl Python {
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("python3");
        command.args(["-c", program]).args(arguments).env("PYTHONPATH", &self.folder);
        command
    }

    /// What the program prints.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let done = self.command(program, arguments).output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }
}
