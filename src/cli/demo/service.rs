//! The demo's servers on Lifeboat's way: backed up, given back into new ones, and rehearsed in a drill.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::servers::{Kind, Server};
use super::stage::Stage;
use super::{CliError, Context, Failure, options};
use crate::app::drills;
use crate::app::services::{self, Surroundings, TargetFlags};
use crate::base::byte_size::human;
use crate::base::progress::NoProgress;
use crate::cli::Exit;
use crate::cli::drill::show;
use crate::config::ServiceSettings;
use crate::drill::check::CheckSpec;
use crate::drill::sandbox::Ground;
use crate::drill::spec::From;
use crate::drill::{Spec, Stage as DrillStage};
use crate::engine::backup::{self, CaptureRequest};
use crate::engine::read::select::SnapshotPath;
use crate::engine::restore::service::to_service;
use crate::repo::Repository;
use crate::repo::snapshots::Filter;
use crate::runbook::redact::Redactor;

/// What the drill must keep to.
const RTO: Duration = Duration::from_secs(60);
const RPO: Duration = Duration::from_secs(3600);

/// Runs what may wait on a thread where it may.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| CliError::new(Exit::Failed, "the demo panicked: this is a bug"))?
}

/// What engines need: none of the user's settings but where programs are.
fn around(repo: &Repository, ground: &Ground, context: &Context) -> Surroundings {
    let settings = ServiceSettings { path: ground.path.clone(), ..ServiceSettings::default() };
    Surroundings {
        cancel: context.cancel.clone(),
        now: repo.world.now(),
        spool: ground.scratch.clone(),
        runtime: tokio::runtime::Handle::current(),
        user: context.settings.user.clone(),
        settings,
        state: None,
    }
}

/// The name its snapshots are found by.
pub fn job(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "postgres",
        Kind::Redis => "redis",
    }
}

/// Backs one server up, and says what came of it.
pub async fn back_up(
    repo: &Repository,
    server: &Server,
    ground: &Ground,
    context: &Context,
) -> Result<String, CliError> {
    let (address, surroundings) = (server.address(), around(repo, ground, context));
    let opened = blocking(move || Ok(services::capture(&address, &surroundings)?)).await?;
    let request = CaptureRequest { source: opened.capture, kind: opened.kind };
    let options = options(repo, job(server.kind).into(), context);
    let outcome = backup::capture(repo, request, &options, Arc::new(NoProgress), &context.cancel).await?;
    let how = match server.kind {
        Kind::Postgres => "in one exported snapshot, rows counted and hashed as they passed",
        Kind::Redis => "as a replica, its checksum proven",
    };
    Ok(format!("{}: {} {how}", server.kind.name(), human(outcome.statistics.total_bytes)))
}

/// Gives a server's data back into a new one. Returns what was proven.
pub async fn restore(
    repo: &Repository,
    server: &Server,
    ground: &Ground,
    context: &Context,
) -> Result<Vec<String>, CliError> {
    let meant = format!("{}@latest", job(server.kind));
    let selected = SnapshotPath::parse(meant.as_ref())?.select(repo, &Filter::default()).await?;
    let (address, surroundings) = (server.address(), around(repo, ground, context));
    let target = blocking(move || {
        let flags = TargetFlags { jobs: 1, ..TargetFlags::default() };
        Ok(services::target(&address, flags, &surroundings)?)
    });
    let given = to_service(repo, &selected, target.await?, Arc::new(NoProgress), &context.cancel).await?;
    if let Some(what) = given.returned.not_done.first() {
        return Err(Failure::Wrong(format!("not restored: {what}")).into());
    }
    Ok(given.returned.proven)
}

/// Rehearses the recovery of the database, or of the stack's files where there is none, and shows the evidence.
pub async fn drill(
    repo: &Repository,
    has_postgres: bool,
    stack_job: &str,
    ground: &Ground,
    context: &Context,
    stage: &mut Stage,
) -> Result<String, CliError> {
    let began = stage.begin("Drill")?;
    let (snapshot, checks) = match has_postgres {
        true => {
            let query = format!("SELECT count(*) = {} FROM customers", super::servers::CUSTOMERS);
            (format!("{}@latest", job(Kind::Postgres)), vec![CheckSpec::Sql(query)])
        }
        false => (format!("{stack_job}@latest"), Vec::new()),
    };
    let spec = Spec {
        name: "demo".into(),
        snapshot,
        machine: None,
        sandbox: None,
        lent: None,
        secrets: Vec::new(),
        rto: Some(RTO),
        rpo: Some(RPO),
        detect: Duration::ZERO,
        decide: Duration::ZERO,
        steps: Vec::new(),
        checks,
        faults: Vec::new(),
        from: From::Here,
    };
    let surroundings = around(repo, ground, context);
    let drill_stage = DrillStage {
        repo,
        repository: "the demo's".into(),
        open_target: &|address| drills::open_target(address, &surroundings),
        ground: ground.clone(),
        machine: drills::machine(&context.settings),
        began: Instant::now(),
        keep: None,
        witness: None,
        redactor: &Redactor::default(),
        progress: Arc::new(NoProgress),
        cancel: &context.cancel,
    };
    let evidence = crate::drill::run(&spec, &drill_stage).await?;
    stage.done(began)?;
    for line in show::text(&evidence).lines().filter(|line| !line.is_empty()) {
        stage.detail(line)?;
    }
    if !evidence.verdict.is_passed() {
        return Err(Failure::Wrong(format!("the drill: {}", evidence.verdict.words())).into());
    }
    Ok(evidence.verdict.words().to_owned())
}
