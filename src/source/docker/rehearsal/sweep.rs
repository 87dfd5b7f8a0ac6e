//! Rehearsals that nobody will clean up any more: their maker is gone, or their time is over.

use std::collections::{BTreeSet, HashMap};

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};

use super::super::DockerError;
use super::super::daemon::Daemon;
use super::{LABEL, MAKER, UNTIL, remove};

/// Host, boot, process and when that began: nobody else's, also after a reboot or when numbers are used again.
pub fn maker() -> String {
    let pid = std::process::id();
    format!("{} {} {pid} {}", host(), boot(), began(pid).unwrap_or_default())
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// When a process began, in the kernel's ticks; `None`: there is none.
fn began(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Whether nobody will clean up what carries these labels.
fn is_left(labels: &HashMap<String, String>, now_seconds: i64) -> bool {
    let until = labels.get(UNTIL).and_then(|until| until.parse::<i64>().ok());
    if until.is_some_and(|until| until < now_seconds) {
        return true;
    }
    let maker = labels.get(MAKER).map(String::as_str).unwrap_or_default();
    let mut words = maker.split(' ');
    let (Some(of_host), Some(of_boot), Some(pid), Some(ticks)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    // Another host's processes cannot be looked at: its rehearsals end by their time.
    of_host == host() && (of_boot != boot() || pid.parse().ok().and_then(began).as_deref() != Some(ticks))
}

/// Removes what killed rehearsals left on the server. Returns their names. Only what carries our label is looked at.
///
/// # Errors
/// The daemon does not answer.
pub fn sweep(daemon: &Daemon) -> Result<Vec<String>, DockerError> {
    let filters = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
    let (api, what) = (&daemon.api, "what earlier drills made");
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let containers = daemon.call("list", what, api.list_containers(Some(options)))?;
    let mut found: Vec<HashMap<String, String>> =
        containers.into_iter().filter_map(|container| container.labels).collect();
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let networks = daemon.call("list", what, api.list_networks(Some(options)))?;
    found.extend(networks.into_iter().filter_map(|network| network.labels));
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let volumes = daemon.call("list", what, api.list_volumes(Some(options)))?;
    found.extend(volumes.volumes.unwrap_or_default().into_iter().map(|volume| volume.labels));
    let now_seconds = jiff::Timestamp::now().as_second();
    let left: BTreeSet<String> = found
        .iter()
        .filter(|labels| is_left(labels, now_seconds))
        .filter_map(|labels| labels.get(LABEL).cloned())
        .collect();
    for run in &left {
        remove(daemon, run)?;
    }
    Ok(left.into_iter().map(|run| format!("lifeboat-drill-{run}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(maker: &str, until: i64) -> HashMap<String, String> {
        HashMap::from([(MAKER.to_owned(), maker.to_owned()), (UNTIL.to_owned(), until.to_string())])
    }

    #[test]
    fn only_what_nobody_cleans_up_any_more_is_left() {
        let (mine, now) = (maker(), 1000);
        assert!(!is_left(&labels(&mine, 2000), now));
        assert!(is_left(&labels(&mine, 999), now), "its time is over");
        let gone = format!("{} {} 2000000000 1", host(), boot());
        assert!(is_left(&labels(&gone, 2000), now));
        let reused = format!("{} {} {} 1", host(), boot(), std::process::id());
        assert!(is_left(&labels(&reused, 2000), now), "the number is another process's now");
        assert!(is_left(&labels(&format!("{} other 1 1", host()), 2000), now), "rebooted since");
        assert!(!is_left(&labels("elsewhere x 2000000000 1", 2000), now), "not ours to judge");
        assert!(!is_left(&labels("nonsense", 2000), now));
    }
}
