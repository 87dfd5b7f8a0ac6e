//! The masters of a cluster: each holds a part of the keys, and only all of them are a backup.

use std::sync::Arc;

use super::RedisError;
use super::reach::Reach;
use super::wire::Wire;

/// A master: its id and the way to it.
pub struct Master {
    pub id: String,
    pub reach: Arc<dyn Reach>,
}

/// Every master of the cluster that `wire` leads into, ascending by id.
///
/// # Errors
/// The cluster does not serve all of its keys, or a master is down.
pub fn masters(wire: &mut Wire, own: &Arc<dyn Reach>) -> Result<Vec<Master>, RedisError> {
    let state = wire.ask(&["CLUSTER", "INFO"])?.text();
    if !state.lines().any(|line| line.trim_end() == "cluster_state:ok") {
        let server = wire.server();
        let why = format!(
            "{server} says that its cluster is not whole: a backup would lack keys\n\
             hint: CLUSTER INFO and CLUSTER NODES say what is missing"
        );
        return Err(RedisError::Unable(why));
    }
    let text = wire.ask(&["CLUSTER", "NODES"])?.text();
    let mut masters = Vec::new();
    for node in text.lines().filter_map(parse) {
        if !node.is_master {
            continue;
        }
        if node.is_down {
            let (id, server) = (node.id, wire.server());
            return Err(RedisError::Unable(format!("{server} says that the master {id} is down")));
        }
        let reach = match (node.is_own, node.place) {
            (true, _) => own.clone(),
            (false, Some((host, port))) => own.other(host, port),
            (false, None) => {
                let what = format!("the master {} has no address", node.id);
                return Err(RedisError::Protocol { server: wire.server().to_owned(), what });
            }
        };
        masters.push(Master { id: node.id.to_owned(), reach });
    }
    masters.sort_by(|left, right| left.id.cmp(&right.id));
    Ok(masters)
}

struct Node<'a> {
    id: &'a str,
    place: Option<(&'a str, u16)>,
    is_own: bool,
    is_master: bool,
    is_down: bool,
}

/// `id host:port@bus,name flags master ping pong epoch link slots…`
fn parse(line: &str) -> Option<Node<'_>> {
    let mut words = line.split(' ');
    let (id, place, flags) = (words.next()?, words.next()?, words.next()?);
    let slots = words.nth(5);
    let has = |flag| flags.split(',').any(|one| one == flag);
    let address = place.split(['@', ',']).next().and_then(|place| place.rsplit_once(':'));
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_id.then(|| Node {
        id,
        place: address.and_then(|(host, port)| Some((host, port.parse().ok()?))),
        is_own: has("myself"),
        // One without slots holds nothing.
        is_master: has("master") && slots.is_some(),
        is_down: has("fail") || has("noaddr") || has("handshake"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_with_and_without_names_and_slots() {
        let own = parse("07c3 127.0.0.1:30004@31004,host myself,master - 0 1426238317239 4 connected 0-5460")
            .unwrap();
        assert!(own.is_own && own.is_master && !own.is_down);
        assert_eq!(own.place, Some(("127.0.0.1", 30004)));
        let replica = parse("67ed ::1:30002@31002 slave 07c3 0 1426238316232 2 connected").unwrap();
        assert!(!replica.is_master);
        assert_eq!(replica.place, Some(("::1", 30002)));
        let empty = parse("292f 10.0.0.3:30003@31003 master - 0 1426238318243 3 connected").unwrap();
        assert!(!empty.is_master);
        let down = parse("292f 10.0.0.3:30003@31003 master,fail - 0 1 3 disconnected 5-9").unwrap();
        assert!(down.is_master && down.is_down);
        assert!(parse("../../etc 1:2 master").is_none());
    }
}
