//! A state in whatever backend a folder of configuration names, through `terraform state pull` and `push`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Place, STATE_LIMIT_BYTES, TerraformError};
use crate::base::cancel::Cancel;
use crate::base::process::{Process, ProcessError, ProcessOptions};

/// Programs that know the format, the first of them preferred.
const PROGRAMS: [&str; 2] = ["terraform", "tofu"];

/// See the module.
pub struct ProgramPlace {
    folder: PathBuf,
    program: PathBuf,
    withheld: &'static [&'static str],
    cancel: Cancel,
    force: bool,
    stamp: String,
}

impl ProgramPlace {
    /// Finds the program in the folders of `path`. `force`: also what the program would refuse is pushed.
    ///
    /// # Errors
    /// There is none.
    pub fn new(
        folder: PathBuf,
        path: &[PathBuf],
        withheld: &'static [&'static str],
        cancel: &Cancel,
        force: bool,
        stamp: String,
    ) -> Result<Self, TerraformError> {
        let all = PROGRAMS.iter().flat_map(|name| path.iter().map(move |folder| folder.join(name)));
        let program = all.into_iter().find(|program| program.is_file()).ok_or_else(|| {
            let why = format!(
                "{} is a folder, whose state is asked for by `terraform state pull`, and neither terraform nor tofu is \
                 installed here\nhint: name the state's file, or s3://BUCKET/KEY",
                folder.display()
            );
            TerraformError::Refused(why)
        })?;
        Ok(Self { folder, program, withheld, cancel: cancel.clone(), force, stamp })
    }

    fn run(&self, arguments: &[&std::ffi::OsStr]) -> Result<Vec<u8>, TerraformError> {
        let subject = format!("state of {}", self.folder.display());
        let failed = |cause: ProcessError| TerraformError::Tool { subject: subject.clone(), cause };
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.folder);
        command.env("TF_IN_AUTOMATION", "1").env("TF_INPUT", "0").env("CHECKPOINT_DISABLE", "1");
        command.env_remove("TF_LOG").env("NO_COLOR", "1");
        let options = ProcessOptions { withheld: self.withheld, ..ProcessOptions::default() };
        let mut process = Process::start(command, options, &self.cancel).map_err(failed)?;
        let mut bytes = Vec::new();
        let read = (&mut process).take(STATE_LIMIT_BYTES).read_to_end(&mut bytes);
        process.finish().map_err(failed)?;
        read.map_err(|cause| TerraformError::Failed(format!("{subject}: {cause}")))?;
        Ok(bytes)
    }
}

impl Place for ProgramPlace {
    fn shown(&self) -> String {
        format!("the state of {}", self.folder.display())
    }

    fn read(&self) -> Result<Option<Vec<u8>>, TerraformError> {
        // It says nothing when there is no state yet.
        let bytes = self.run(&["state".as_ref(), "pull".as_ref()])?;
        Ok((!bytes.iter().all(u8::is_ascii_whitespace)).then_some(bytes))
    }

    fn lock(&self) -> Result<Option<String>, TerraformError> {
        // The program locks by itself, and says who is there when it cannot.
        Ok(None)
    }

    fn write(&self, state: &[u8], old: Option<&[u8]>) -> Result<Option<String>, TerraformError> {
        let local = |operation: &'static str, path: &Path| {
            let path = path.to_owned();
            move |cause| TerraformError::File { operation, path, cause }
        };
        let mut kept = None;
        if let Some(old) = old {
            let path = self.folder.join(format!("terraform.tfstate.before-{}", self.stamp));
            let mut options = std::fs::OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
            let mut file = options.open(&path).map_err(local("make", &path))?;
            file.write_all(old).and_then(|()| file.sync_all()).map_err(local("write", &path))?;
            kept = Some(path.display().to_string());
        }
        let mut fresh =
            tempfile::NamedTempFile::new().map_err(local("make", Path::new("a temporary file")))?;
        fresh.write_all(state).map_err(local("write", fresh.path()))?;
        let mut arguments: Vec<&std::ffi::OsStr> = vec!["state".as_ref(), "push".as_ref()];
        if self.force {
            arguments.push("-force".as_ref());
        }
        arguments.push(fresh.path().as_os_str());
        self.run(&arguments)?;
        Ok(kept)
    }
}
