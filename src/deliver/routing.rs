//! Which sinks get the traces of which rules. Data points and log records are kept by no rule and go to all.

use std::collections::BTreeMap;

/// A set of sinks that some rules' traces go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Route(u16);

impl Route {
    /// To all sinks.
    pub(crate) const ALL: Route = Route(0);
}

/// Every route there is.
#[derive(Clone, Debug)]
pub(crate) struct Routing {
    /// The first is [`Route::ALL`].
    routes: Vec<Members>,
    by_rule: BTreeMap<String, Route>,
    /// Of rules that no sink names.
    others: Route,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Members {
    /// By the sinks' numbers.
    takes: Vec<bool>,
    /// Finds the same sinks in another process: of their names. 0 for all.
    fingerprint: u32,
}

impl Routing {
    /// Names of sinks, each with the rules whose traces it takes; of all rules if there are none.
    pub(crate) fn new(sinks: &[(&str, Option<&[String]>)]) -> Routing {
        let all = Members { takes: vec![true; sinks.len()], fingerprint: 0 };
        let mut routing = Routing { routes: vec![all], by_rule: BTreeMap::new(), others: Route::ALL };
        routing.others = routing.route(sinks, |rules| rules.is_none());
        for rule in sinks.iter().filter_map(|(_, rules)| *rules).flatten() {
            let route = routing.route(sinks, |rules| rules.is_none_or(|rules| rules.contains(rule)));
            routing.by_rule.insert(rule.clone(), route);
        }
        routing
    }

    fn route(&mut self, sinks: &[(&str, Option<&[String]>)], takes: impl Fn(Option<&[String]>) -> bool) -> Route {
        let takes: Vec<bool> = sinks.iter().map(|(_, rules)| takes(*rules)).collect();
        let known = self.routes.iter().position(|known| known.takes == takes);
        let place = known.unwrap_or_else(|| {
            let mut names: Vec<&str> =
                sinks.iter().zip(&takes).filter(|(_, takes)| **takes).map(|(s, _)| s.0).collect();
            names.sort_unstable();
            let fingerprint = crc32fast::hash(names.join("\n").as_bytes()).max(1);
            self.routes.push(Members { takes, fingerprint });
            self.routes.len() - 1
        });
        Route(u16::try_from(place).expect("a configuration names fewer rules"))
    }

    /// Whether some traces do not go to all sinks.
    pub(crate) fn is_split(&self) -> bool {
        self.routes.len() > 1
    }

    pub(crate) fn of_rule(&self, rule: &str) -> Route {
        self.by_rule.get(rule).copied().unwrap_or(self.others)
    }

    /// Those that sinks name, in order.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &str> {
        self.by_rule.keys().map(String::as_str)
    }

    pub(crate) fn takes(&self, route: Route, sink: usize) -> bool {
        self.routes[usize::from(route.0)].takes[sink]
    }

    pub(crate) fn fingerprint(&self, route: Route) -> u32 {
        self.routes[usize::from(route.0)].fingerprint
    }

    /// The route of an earlier process; none if its sinks are no longer these.
    pub(crate) fn find(&self, fingerprint: u32) -> Option<Route> {
        let place = self.routes.iter().position(|known| known.fingerprint == fingerprint)?;
        u16::try_from(place).ok().map(Route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_leads_to_the_sinks_that_name_it_and_to_those_that_name_none() {
        let [errors, both] = [vec!["errors".to_owned()], vec!["errors".to_owned(), "slow".to_owned()]];
        let sinks = [("a", Some(&errors[..])), ("b", None), ("c", Some(&both[..]))];
        let routing = Routing::new(&sinks);
        let taking = |rule| [0, 1, 2].map(|sink| routing.takes(routing.of_rule(rule), sink));
        assert_eq!(taking("errors"), [true, true, true]);
        assert_eq!(taking("slow"), [false, true, true]);
        assert_eq!(taking("otherwise"), [false, true, false]);
        assert_eq!(routing.of_rule("errors"), Route::ALL);
        assert!(routing.is_split());
        assert!(!Routing::new(&[("a", None), ("b", None)]).is_split());
    }

    #[test]
    fn another_process_finds_a_route_by_its_sinks_whatever_their_order() {
        let slow = ["slow".to_owned()];
        let [one, other] = [[("a", Some(&slow[..])), ("b", None)], [("b", None), ("a", Some(&slow[..]))]];
        let (one, other) = (Routing::new(&one), Routing::new(&other));
        let found = other.find(one.fingerprint(one.of_rule("otherwise"))).expect("the same sink");
        assert_eq!([other.takes(found, 0), other.takes(found, 1)], [true, false]);
        assert_eq!(other.find(0), Some(Route::ALL));
        let renamed = Routing::new(&[("a", Some(&slow[..])), ("c", None)]);
        assert_eq!(renamed.find(one.fingerprint(one.of_rule("otherwise"))), None);
    }
}
