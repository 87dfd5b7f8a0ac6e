//! `drill run`: one rehearsal, its evidence told, written where it was asked for, and kept.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::backup::service::surroundings;
use super::super::runbook::rehearse_drill;
use super::super::{CliError, Context, Exit};
use super::faults::{self, FaultArgs, Means, run_bare};
use super::filing::{Ended, Started, begin, close, file as file_evidence, redactor};
use super::sandbox::{lend, sandbox_of};
use super::show::text;
use super::write::{append, pretty, write};
use super::{copies, exit};
use crate::app::{self, drills};
use crate::config::file::ConfigFile;
use crate::config::{file, parse_duration};
use crate::drill::check::{CheckSpec, HttpCheck};
use crate::drill::evidence::{Evidence, SignedEvidence};
use crate::drill::fault::{Witness, inject};
use crate::drill::report::{html::html, junit::junit, markdown::markdown};
use crate::drill::sandbox::{DockerGround, Ground, sweep};
use crate::drill::spec::{From, Step};
use crate::drill::underway::UnderWay;
use crate::drill::{Spec, Stage};
use crate::repo::Repository;
use crate::repo::sync::Thoroughness;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A drill of the configuration file, or what this one is called; its runs are compared with each other
    #[arg(value_name = "NAME", default_value = "drill", value_parser = drill_name)]
    name: String,
    /// Every drill of the configuration file
    #[arg(long, conflicts_with_all = ["name", "snapshot"])]
    all: bool,
    /// Snapshot to restore: latest, JOB@latest, an id… Everything else stays as the configuration file tells it of NAME
    /// [default: what the configuration file says of NAME, else latest]
    #[arg(long, value_name = "SNAP")]
    snapshot: Option<String>,
    /// Where to restore to: directory, sqlite, redis, postgres, docker, or the address of a server that is lent to
    /// drills [default: what suits the snapshot]
    #[arg(long, value_name = "KIND|ADDRESS")]
    sandbox: Option<String>,
    /// Recovery time that is tolerated, such as 30m; exit code 22 above it
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    rto: Option<Duration>,
    /// Loss that is tolerated, such as 6h; exit code 22 above it
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    rpo: Option<Duration>,
    /// Time people need to notice; counts towards the RTO
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    detect: Duration,
    /// Time people need to decide; counts towards the RTO
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    decide: Duration,
    /// A check by its name (may be repeated): rows, roles, sequences, extensions, locale, constraints, keys,
    /// append-only, files, modes, owners, certificates[=14d], freshness=TABLE.COLUMN/1h
    #[arg(long, value_name = "CHECK", value_parser = file::named_check)]
    check: Vec<CheckSpec>,
    /// A query whose first value must be true or not 0 (may be repeated)
    #[arg(long, value_name = "QUERY")]
    check_sql: Vec<String>,
    /// A shell command that must end with 0; it finds the restored state in LIFEBOAT_DRILL_PATH or
    /// LIFEBOAT_DRILL_ADDRESS, and psql needs no arguments (may be repeated)
    #[arg(long, value_name = "COMMAND")]
    check_command: Vec<String>,
    /// An address that must answer 200, or with the status behind it: 'http://web:8080/health 204'. It proves something
    /// if it names a service of a Docker project; this machine's loopback proves nothing, others are refused (may be
    /// repeated)
    #[arg(long, value_name = "URL", value_parser = http_check)]
    check_http: Vec<HttpCheck>,
    /// A shell command to run in the sandbox once it is restored and before the checks above, such as a migration
    /// (may be repeated)
    #[arg(long, value_name = "COMMAND")]
    step: Vec<String>,
    /// Folder for the sandbox [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Write the signed evidence
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
    /// Write JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a summary in Markdown, such as to $GITHUB_STEP_SUMMARY
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write a page with the timeline and the trend
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Keep nothing in the repository: for storage credentials that only read
    #[arg(long)]
    pub no_keep: bool,
    #[command(flatten)]
    pub faults: FaultArgs,
}

impl Args {
    fn writes(&self) -> bool {
        self.json_file.is_some() || self.junit.is_some() || self.html.is_some()
    }

    /// The flags that tell a drill otherwise than the configuration file does.
    fn changes(&self) -> Vec<&'static str> {
        let given = [
            ("--sandbox", self.sandbox.is_some()),
            ("--rto", self.rto.is_some()),
            ("--rpo", self.rpo.is_some()),
            ("--detect", !self.detect.is_zero()),
            ("--decide", !self.decide.is_zero()),
            ("--check", !self.check.is_empty()),
            ("--check-sql", !self.check_sql.is_empty()),
            ("--check-command", !self.check_command.is_empty()),
            ("--check-http", !self.check_http.is_empty()),
            ("--step", !self.step.is_empty()),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag).collect()
    }

    /// A drill of the file is what the file says: flags that say otherwise would file another drill's runs under its
    /// name.
    fn refuse_changes(&self, drill: &str, found: &ConfigFile) -> Result<(), CliError> {
        let changes = self.changes();
        if changes.is_empty() {
            return Ok(());
        }
        let (path, changes) = (found.path.display(), changes.join(", "));
        let why = format!("drill {drill} is told by {path}: {changes} would make it another one");
        Err(CliError::usage(why).hint(format!(
            "write it there under [drill.{drill}]; or tell all of it here, by another name and with --snapshot"
        )))
    }

    fn spec(&self) -> Result<Spec, CliError> {
        let mut checks = self.check.clone();
        checks.extend(self.check_sql.iter().cloned().map(CheckSpec::Sql));
        checks.extend(self.check_command.iter().map(|line| CheckSpec::Command(file::shell(line))));
        checks.extend(self.check_http.iter().cloned().map(CheckSpec::Http));
        let (sandbox, lent) = sandbox_of("--sandbox", self.sandbox.as_deref())?;
        Ok(Spec {
            name: self.name.clone(),
            snapshot: self.snapshot.clone().unwrap_or_else(|| "latest".into()),
            sandbox,
            lent,
            secrets: Vec::new(),
            rto: self.rto,
            rpo: self.rpo,
            detect: self.detect,
            decide: self.decide,
            steps: self.step.iter().map(|line| Step::Command(file::shell(line))).collect(),
            checks,
            faults: self.faults.faults.clone(),
            from: if self.faults.from_kit.is_some() { From::Kit } else { From::Here },
        })
    }
}

/// `URL` or `URL STATUS`.
fn http_check(text: &str) -> Result<HttpCheck, String> {
    let (url, status) = match text.trim().split_once(char::is_whitespace) {
        Some((url, status)) => (url, status.trim().parse().map_err(|_| format!("{status:?} is no status"))?),
        None => (text.trim(), 200),
    };
    Ok(HttpCheck { url: url.to_owned(), status, contains: None })
}

/// A drill of the configuration file.
pub fn spec_of(name: &str, drill: &file::Drill) -> Result<Spec, CliError> {
    let what = format!("drill {name}");
    let time =
        |key: &str, text: &Option<String>| file::time(&what, key, text.as_ref()).map_err(CliError::usage);
    let (sandbox, lent) = sandbox_of(&what, drill.sandbox.as_deref())?;
    let spec = Spec {
        name: name.to_owned(),
        snapshot: drill.restore.clone().unwrap_or_default(),
        sandbox,
        lent,
        secrets: drill.secrets.clone(),
        rto: time("rto", &drill.rto)?,
        rpo: time("rpo", &drill.rpo)?,
        detect: time("detect", &drill.detect)?.unwrap_or_default(),
        decide: time("decide", &drill.decide)?.unwrap_or_default(),
        steps: drill.steps.iter().map(|step| step.0.clone()).collect(),
        checks: drill.checks.iter().map(|check| check.0.clone()).collect(),
        faults: faults::of_file(&what, drill)?,
        from: faults::from_of_file(&what, drill)?,
    };
    spec.validate().map_err(|error| CliError::from(error).within(&what))?;
    Ok(spec)
}

/// `--json` takes no file; what stands behind it would become the name.
fn drill_name(text: &str) -> Result<String, String> {
    if text.contains('/') || [".json", ".xml", ".md", ".html"].iter().any(|end| text.ends_with(end)) {
        return Err(
            "a file is no name of a drill; --json-file, --junit, --markdown and --html write files".into()
        );
    }
    super::super::text::name(text)
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if let Some(file) = args.faults.bare.clone() {
        return super::bare::child(&args, &file, context).await;
    }
    if !args.all && !context.has_file() {
        return one(&args, args.spec()?, None, context).await;
    }
    let found = context.file()?;
    if let Some(why) = found.file.not_its_duty(&found.machine, file::Duty::Drill).filter(|_| args.all) {
        context.note(format_args!("no drill was run: {why}"));
        return Ok(Exit::Ok);
    }
    if args.snapshot.is_some() && !found.file.drill.contains_key(&args.name) {
        return one(&args, args.spec()?, None, context).await;
    }
    let drills: Vec<_> =
        found.file.drill.iter().filter(|(name, _)| args.all || **name == args.name).collect();
    if found.file.drill.is_empty() && !args.all {
        return one(&args, args.spec()?, None, context).await;
    }
    let known: Vec<&str> = found.file.drill.keys().map(String::as_str).collect();
    match drills.len() {
        // A misspelt name must not become a drill without checks.
        0 if !args.all => {
            let hint =
                format!("there are {}; --snapshot runs one that the file does not know", known.join(", "));
            return Err(CliError::usage(format!("there is no drill {:?}", args.name)).hint(hint));
        }
        0 => return Err(CliError::usage(format!("{} defines no drill", found.path.display()))),
        1 => {}
        _ if args.writes() => {
            let why = "several drills cannot share one file of evidence";
            return Err(
                CliError::usage(why).hint("name one drill, or use `drill show NAME --html FILE` afterwards")
            );
        }
        _ => {}
    }
    if let Some((name, _)) = drills.first() {
        args.refuse_changes(name, &found)?;
    }
    let mut exits = Vec::new();
    for (name, drill) in drills {
        let ended = async {
            let (drilled, repository) = found.file.repository_of_drill(drill).map_err(CliError::usage)?;
            let of_drill = context.with(context.settings_of(repository)?);
            if drill.stack.is_some() {
                faults::refuse_for_stack(name, drill, &args.faults)?;
                return super::stack::rehearse(&args, name, drill, &found, &of_drill).await;
            }
            if let Some(runbook) = &drill.runbook {
                faults::refuse_for_runbook(name, drill, &args.faults)?;
                return of_runbook(&args, name, drill, &found.path.with_file_name(runbook), &of_drill).await;
            }
            let (faults, mut spec) = args.faults.for_drill(drill, spec_of(name, drill)?);
            // Another snapshot is rehearsed as this one is: by the same checks.
            spec.snapshot = args.snapshot.clone().unwrap_or(spec.snapshot);
            one(&Args { faults, ..args.clone() }, spec, Some((&found.file, drilled)), &of_drill).await
        };
        exits.push(match ended.await {
            Ok(exit) => exit,
            Err(error) => error.report(&format!("drill {name}"), context.json),
        });
    }
    Ok(Exit::worst_of(exits))
}

/// A drill whose steps stand in a document.
async fn of_runbook(
    args: &Args,
    name: &str,
    drill: &file::Drill,
    runbook: &Path,
    context: &Context,
) -> Result<Exit, CliError> {
    let set = drill.set.clone().into_iter().collect();
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let signed = rehearse_drill(name, runbook.to_owned(), set, !args.no_keep, scratch, context).await?;
    write_all(args, &signed, &[])?;
    Ok(exit(signed.evidence.verdict))
}

/// `known`: the file that tells of the drill, and the name of the repository it drills.
async fn one(
    args: &Args,
    spec: Spec,
    known: Option<(&file::File, &str)>,
    context: &Context,
) -> Result<Exit, CliError> {
    // Before anything starts, and before a password is asked for.
    spec.validate()?;
    let key = drills::signing_key(&context.settings)?;
    let under_way = begin(begun(&spec.name, spec.hash()?, context), !args.no_keep, context)?;
    let started = Started::default();
    let ran = match rehearse(args, &spec, known, &started, context).await {
        Ok(ran) => ran,
        Err(error) => {
            close(under_way, started.ended(&error), context);
            return Err(error);
        }
    };
    let Ran { evidence, repo } = ran;
    finish(Rehearsed { evidence, repo: repo.as_ref(), key }, under_way, args, context).await
}

/// What is known of a drill before anything happened.
pub fn begun(name: &str, spec_hash: String, context: &Context) -> Evidence {
    Evidence { spec_hash, ..Evidence::blank(name, drills::machine(&context.settings)) }
}

async fn rehearse(
    args: &Args,
    spec: &Spec,
    known: Option<(&file::File, &str)>,
    started: &Started,
    context: &Context,
) -> Result<Ran, CliError> {
    let mut ran = match spec.from {
        From::Here => here(args, spec, &Witness::default(), started, context).await?,
        From::Replica | From::Kit => {
            let scratch = ground(args, context).scratch;
            let evidence = faults::from_nothing(&args.faults, spec, started, context, &scratch).await?;
            Ran { evidence, repo: home(args, context).await }
        }
    };
    if let Some((file, drilled)) = known {
        copies::look(file, drilled, &mut ran.evidence, context).await;
    }
    Ok(ran)
}

/// A drill that ran, and the repository that keeps its evidence.
pub struct Ran {
    pub evidence: Evidence,
    repo: Option<Repository>,
}

/// Where evidence of a recovery from elsewhere is kept, if that can be reached.
async fn home(args: &Args, context: &Context) -> Option<Repository> {
    if args.no_keep {
        return None;
    }
    let opening = async {
        let (location, password) = (context.location()?, context.password()?);
        // Not given up when interrupted: that is what the evidence has to say.
        Ok::<_, CliError>(app::open_repository(&context.settings, location, &password).await?)
    };
    let opened = opening.await;
    opened
        .map_err(|error| context.warn(format_args!("the evidence is not kept: {}", error.causes.join(": "))))
        .ok()
}

/// Runs a drill on this machine as it stands, and injects its faults.
pub async fn here(
    args: &Args,
    spec: &Spec,
    witness: &Witness,
    started: &Started,
    context: &Context,
) -> Result<Ran, CliError> {
    let mut ground = ground(args, context);
    ground.lent = lend(spec.lent.as_deref(), context).await?;
    let scratch = ground.scratch.clone();
    // A fault that cannot be what it is declared to be is told before anything starts.
    let replicas = faults::replicas_for(&args.faults, &spec.faults, context)?;
    let began = Instant::now();
    let (repo, unlock) = context.open_with_key().await?;
    context.until_cancelled(async { Ok(repo.sync(Thoroughness::Tolerant).await?) }).await?;
    let around = surroundings(context, &repo);
    let redactor = redactor(context, Some(&unlock));
    // Also what faults are recovered with: once the drill has run, no error may hide what it found.
    let means = match spec.faults.is_empty() {
        true => None,
        false => {
            let means = Means::new(unlock, replicas, scratch, context)?;
            let bare = means.bare(context)?;
            Some((means, bare))
        }
    };
    let bare = means.as_ref().map(|(_, bare)| run_bare(bare));
    let rescue = match means.as_ref().zip(bare.as_ref()) {
        Some(((means, _), bare)) => Some(means.rescue(bare, context)?),
        None => None,
    };
    let (counters, display) = context.progress();
    let stage = Stage {
        repo: &repo,
        repository: context.location()?.to_string(),
        open_target: &|address| drills::open_target(address, &around),
        ground,
        machine: drills::machine(&context.settings),
        began,
        progress: counters,
        cancel: &context.cancel,
        keep: None,
        witness: (!spec.faults.is_empty() || args.faults.witness.is_some()).then_some(witness),
        redactor: &redactor,
    };
    started.set(true);
    // Its only errors are refusals of what was asked: then nothing was restored.
    let ran = crate::drill::run(spec, &stage).await.inspect_err(|_| started.set(false));
    let mut evidence = ran?;
    if let Some(rescue) = &rescue {
        inject(spec, &stage, witness, rescue, &mut evidence).await;
    }
    drop(stage);
    drop(display);
    Ok(Ran { evidence, repo: Some(repo) })
}

/// What sandboxes are made on, once what earlier drills left there is swept.
pub fn ground(args: &Args, context: &Context) -> Ground {
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    for left in sweep(&scratch) {
        context.note(format_args!("removed what an earlier drill left behind: {}", left.display()));
    }
    Ground {
        scratch,
        path: context.settings.services.path.clone(),
        withheld: crate::config::SECRET_VARIABLES,
        cancel: context.cancel.clone(),
        variables: Vec::new(),
        docker: DockerGround {
            host: context.settings.services.docker_host.clone(),
            state: context.settings.state.value.clone(),
            secrets: Vec::new(),
        },
        lent: None,
    }
}

/// A drill that came to its end, however it went.
pub struct Rehearsed<'r> {
    pub evidence: Evidence,
    /// Keeps the evidence; `None`: it is out of reach.
    pub repo: Option<&'r Repository>,
    pub key: ed25519_dalek::SigningKey,
}

/// Puts the evidence into its chain, keeps it, writes it where it was asked for, and tells it.
pub async fn finish(
    rehearsed: Rehearsed<'_>,
    under_way: UnderWay,
    args: &Args,
    context: &Context,
) -> Result<Exit, CliError> {
    let Rehearsed { evidence, repo, key } = rehearsed;
    let filed = file_evidence(evidence, repo, &under_way, &key, context).await?;
    close(under_way, Ended::Told(filed.later), context);
    let written = write_all(args, &filed.signed, &filed.before);
    tell(&filed.signed, context)?;
    filed.kept?;
    written?;
    Ok(exit(filed.signed.evidence.verdict))
}

fn write_all(args: &Args, signed: &SignedEvidence, before: &[Evidence]) -> Result<(), CliError> {
    let evidence = &signed.evidence;
    if let Some(path) = &args.json_file {
        write(path, &pretty(signed)?)?;
    }
    if let Some(path) = &args.junit {
        write(path, &junit(evidence)?)?;
    }
    if let Some(path) = &args.markdown {
        append(path, &markdown(evidence))?;
    }
    if let Some(path) = &args.html {
        write(path, &html(evidence, before))?;
    }
    Ok(())
}

fn tell(signed: &SignedEvidence, context: &Context) -> Result<(), CliError> {
    if context.json {
        return context.json(signed);
    }
    if context.quiet && signed.evidence.verdict.is_passed() {
        return Ok(());
    }
    let evidence = &signed.evidence;
    let (name, number) = (super::super::text::shown(evidence.name.as_bytes()), evidence.number);
    let code = exit(evidence.verdict) as i32;
    let text = text(evidence);
    context.print(format!("{text}\n→ lifeboat drill show {name}#{number} --html FILE · exit {code}"))
}
