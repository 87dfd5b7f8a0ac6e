//! Values of a runbook's variables: given, found in the environment, standard, asked for; in a drill made.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use super::super::{CliError, Context, Exit, prompt};
use super::ask;
use crate::app::runbooks::Surroundings;
use crate::base::secret::Secret;
use crate::runbook::{Runbook, Variable, drill_rules};
use crate::seal::slot::Unlock;

/// Values by name.
pub type Values = BTreeMap<String, String>;

/// Known to the commands themselves.
const REPOSITORY: &str = "LIFEBOAT_REPOSITORY";

/// `NAME=VALUE`
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Refuses names that the runbook does not know.
pub fn known(runbook: &Runbook, set: &[(String, String)]) -> Result<Values, CliError> {
    let names: Vec<&str> = runbook.front.variables.iter().map(|variable| variable.name.as_str()).collect();
    for (name, _) in set {
        if runbook.variable(name).is_none() {
            let hint = match names.is_empty() {
                true => "it has none".to_owned(),
                false => format!("there are {}", names.join(", ")),
            };
            return Err(CliError::usage(format!("--set {name}: the runbook has no such variable")).hint(hint));
        }
    }
    Ok(set.iter().cloned().collect())
}

/// What is said of it somewhere, outside a drill.
fn found(
    variable: &Variable,
    set: &Values,
    past: &Values,
    around: &Surroundings,
    context: &Context,
) -> Option<String> {
    let name = variable.name.as_str();
    let of_environment = || {
        around.get(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let of_settings = || {
        let repository = context.settings.repository.as_ref().filter(|_| name == REPOSITORY);
        repository.map(|repository| repository.value.to_string())
    };
    let given = set.get(name).cloned().or_else(|| past.get(name).cloned());
    given.or_else(of_environment).or_else(of_settings).or_else(|| variable.default.clone())
}

/// For an emergency. What nobody said is asked for on a terminal.
pub fn of_run(
    runbook: &Runbook,
    set: &Values,
    past: &Values,
    around: &Surroundings,
    context: &Context,
) -> Result<Values, CliError> {
    let mut values = Values::new();
    let mut missing = Vec::new();
    for variable in &runbook.front.variables {
        let value = match found(variable, set, past, around, context) {
            Some(value) => Some(value),
            None if ask::has_terminal() => Some(asked(variable, context)?),
            None => None,
        };
        match value {
            Some(value) => drop(values.insert(variable.name.clone(), value)),
            None => missing.push(variable),
        }
    }
    complete(&missing, values)
}

/// For a drill: what the sandbox makes wins, and cannot be given.
pub fn of_drill(
    runbook: &Runbook,
    set: &Values,
    made: &Values,
    around: &Surroundings,
    context: &Context,
) -> Result<Values, CliError> {
    let mut values = Values::new();
    let mut missing = Vec::new();
    for variable in &runbook.front.variables {
        let name = &variable.name;
        let value = match &variable.drill {
            Some(_) if drill_rules::is_of_the_sandbox(variable) && set.contains_key(name) => {
                let why = format!("--set {name}: a drill makes this value, so that nothing real is touched");
                return Err(CliError::usage(why));
            }
            Some(text) if drill_rules::is_of_the_sandbox(variable) => Some(filled(text, made)?),
            Some(text) => Some(set.get(name).cloned().unwrap_or_else(|| text.clone())),
            None => found(variable, set, &Values::new(), around, context).map(from_here),
        };
        match value {
            Some(value) => drop(values.insert(name.clone(), value)),
            None => missing.push(variable),
        }
    }
    complete(&missing, values)
}

/// Steps of a drill run in a folder of the sandbox: a file that is named from here is named from the root.
fn from_here(value: String) -> String {
    let path = std::path::Path::new(&value);
    match path.is_relative() && path.exists() {
        true => std::path::absolute(path).map_or(value.clone(), |path| path.display().to_string()),
        false => value,
    }
}

fn filled(text: &str, made: &Values) -> Result<String, CliError> {
    for (name, value) in made {
        if let Some(rest) = text.strip_prefix(&format!("${name}")) {
            return Ok(format!("{value}{rest}"));
        }
    }
    Err(CliError::usage(format!("{text}: this drill makes nothing of that name")))
}

fn complete(missing: &[&Variable], values: Values) -> Result<Values, CliError> {
    let Some(first) = missing.first() else { return Ok(values) };
    let names: Vec<String> =
        missing.iter().map(|variable| format!("{} ({})", variable.name, variable.about)).collect();
    let hint = format!("--set {}=VALUE, or a variable of that name in the environment", first.name);
    Err(CliError::usage(format!("the runbook needs to know {}", names.join("; "))).hint(hint))
}

fn asked(variable: &Variable, context: &Context) -> Result<String, CliError> {
    let question = format!("{} ({}): ", variable.name, variable.about);
    if variable.is_secret {
        let Unlock::Passphrase(typed) = prompt::password(&question)? else {
            return Err(CliError::usage(format!("{} was not given", variable.name)));
        };
        let text = String::from_utf8(typed.to_vec());
        return text.map_err(|_| CliError::usage(format!("{} is no text", variable.name)));
    }
    let answer = ask::line(&question, &context.cancel)?;
    if answer.is_empty() {
        return Err(CliError::usage(format!("{} was not given", variable.name)));
    }
    Ok(answer)
}

/// The secret ones, for the redactor.
pub fn secrets(runbook: &Runbook, values: &Values) -> Vec<Secret> {
    let secret = runbook.front.variables.iter().filter(|variable| variable.is_secret);
    secret
        .filter_map(|variable| values.get(&variable.name))
        .map(|value| Secret::from_text(value.clone()))
        .collect()
}

/// Those that may be recorded.
pub fn shown(runbook: &Runbook, values: &Values) -> Vec<(String, String)> {
    let open = runbook.front.variables.iter().filter(|variable| !variable.is_secret);
    open.filter_map(|variable| Some((variable.name.clone(), values.get(&variable.name)?.clone()))).collect()
}

/// A repository that the configuration file knows is left to it: its options are there, too.
pub fn leave_to_settings(runbook: &Runbook, values: &mut Values, context: &Context) {
    let of_settings = context.settings.repository.as_ref().map(|found| found.value.to_string());
    let is_used = runbook.steps.iter().any(|step| step.text.contains("LIFEBOAT_REPOSITORY"));
    if !is_used && values.get(REPOSITORY).is_some_and(|value| Some(value) == of_settings.as_ref()) {
        values.remove(REPOSITORY);
    }
}

/// The repository's password, asked for once where a step may need it and nobody else said it.
pub fn password(runbook: &Runbook, around: &mut Surroundings, context: &Context) -> Result<(), CliError> {
    let uses_us = runbook.steps.iter().any(|step| !step.is_manual() && step.text.contains("lifeboat"));
    let declares = runbook.front.variables.iter().any(|variable| {
        variable.name.starts_with("LIFEBOAT_PASSWORD") || variable.name == "LIFEBOAT_KEY_FILE"
    });
    if declares {
        return Ok(());
    }
    let is_unsaid = matches!(context.settings.password.value, crate::config::PasswordSource::Ask);
    let asked = match is_unsaid && uses_us && std::io::stdin().is_terminal() {
        true => match prompt::password("the repository's password, for steps that open it (Enter: none): ") {
            Ok(password) => Some(password),
            Err(error) if error.exit == Exit::Usage => None,
            Err(error) => return Err(error),
        },
        false => None,
    };
    around.open_with(&context.settings, asked.as_ref());
    Ok(())
}
