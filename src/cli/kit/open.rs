//! `kit open`: the kit and its password, tried at every address it names.

use std::path::Path;

use super::super::text::{plural, shown};
use super::super::{CliError, Context, Exit, prompt};
use super::settings_for;
use crate::app::{self, kits};
use crate::config::PasswordSource;
use crate::engine;
use crate::engine::kit::{Keys, Proof};
use crate::repo::kit::Kit;
use crate::seal::slot::Unlock;

/// What an address gave.
type Tried = (String, Result<Proof, CliError>);

pub async fn run(file: &Path, context: &Context) -> Result<Exit, CliError> {
    let kit = engine::kit::load(file)?;
    let addresses = match context.named_repository() {
        Some(named) => vec![named.to_owned()],
        None if kit.altered => {
            let why = format!("{}: characters of its addresses were changed", file.display());
            return Err(
                CliError::new(Exit::Damage, why).hint("its keys are sound: give the right address with -r")
            );
        }
        None => kit.addresses.clone(),
    };
    if addresses.is_empty() {
        return Err(CliError::usage("the kit names no address").hint("give it with -r"));
    }
    let password = match context.settings.password.read()? {
        Some(password) => password,
        None => prompt::password(&format!("password for the kit of repository {}: ", kit.repo))?,
    };
    let mut tried: Vec<Tried> = Vec::new();
    for address in addresses {
        let proof = prove(&kit, &address, &password, context).await;
        if context.cancel.is_cancelled() {
            return Err(crate::base::cancel::Cancelled.into());
        }
        tried.push((address, proof));
    }
    let is_proven = tried.iter().any(|(_, proof)| proof.is_ok());
    let noted = is_proven.then(|| {
        let event = kits::event(&context.settings, &kit, app::world().clock.now());
        kits::note(&context.settings, &kit.repo, |record| record.opened = Some(event))
    });
    tell(file, &kit, &tried, noted.as_ref().is_some_and(Result::is_ok), context)?;
    if let Some(Err(error)) = noted {
        context.warn(format_args!("that it was opened is not noted: {error}"));
    }
    match tried.into_iter().find_map(|(_, proof)| proof.err()) {
        None => Ok(Exit::Ok),
        Some(error) => Err(error),
    }
}

async fn prove(kit: &Kit, address: &str, password: &Unlock, context: &Context) -> Result<Proof, CliError> {
    let settings = settings_for(kit, address, context)?;
    let location = app::location(&settings)?.clone();
    let bare = crate::config::Settings { kit: None, ..settings };
    let store = app::open_store(&bare, &location)?;
    let proving = async {
        let proof = engine::kit::prove(kit, store, password, app::world()).await?;
        match proof.is_of_nothing() {
            None => Ok(proof),
            Some(why) => Err(CliError::new(Exit::Damage, format!("{}: {why}", proof.location))),
        }
    };
    context.until_cancelled(proving).await.map_err(|error| match &bare.password.value {
        PasswordSource::Ask => error,
        _ if error.exit == Exit::WrongKey => error.hint(format!(
            "the password came from {}; the kit opens with the one it was made under",
            bare.password.origin
        )),
        _ => error,
    })
}

fn tell(file: &Path, kit: &Kit, tried: &[Tried], is_noted: bool, context: &Context) -> Result<(), CliError> {
    if context.json {
        let row = |(address, proof): &Tried| match proof {
            Ok(proof) => serde_json::json!({ "address": address, "opened": true, "proof": proof }),
            Err(error) => {
                serde_json::json!({ "address": address, "opened": false, "error": error.causes.join(": ") })
            }
        };
        return context.json(&serde_json::json!({
            "repository_id": kit.repo.hex(),
            "made_at": kit.made,
            "fingerprint": kit.fingerprint(),
            "addresses": tried.iter().map(row).collect::<Vec<_>>(),
            "noted": is_noted,
        }));
    }
    let mut lines =
        vec![format!("{} of {}, repository {}", file.display(), shown(kit.made.as_bytes()), kit.repo)];
    let mut is_old = false;
    for (address, proof) in tried {
        let address = shown(address.as_bytes());
        match proof {
            Err(error) => lines.push(format!("✗ {address}: {}", error.causes.join(": "))),
            Ok(proof) => {
                let what = match &proof.newest {
                    Some((name, at)) => {
                        let name = shown(name.as_bytes());
                        let snapshots = plural(proof.snapshots as u64, "snapshot");
                        format!("{snapshots}, the newest {name} of {at} read")
                    }
                    None => "no snapshot yet".into(),
                };
                lines.push(format!("✓ {address}: opened by the kit alone; {what}"));
                match &proof.keys {
                    Keys::Current => lines.push("  its keys are those of the storage".into()),
                    Keys::Older { what } => {
                        is_old = true;
                        lines.push(format!("! its keys are older than the storage's ({what})"));
                    }
                    Keys::Lost { what } => {
                        lines.push(format!("! the storage has lost {what}: lifeboat --kit FILE repair keys"));
                    }
                }
            }
        }
    }
    if is_old {
        lines.push("make a new kit: lifeboat kit export".into());
    }
    context.tell(lines.join("\n"))
}
