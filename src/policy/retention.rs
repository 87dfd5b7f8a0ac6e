//! Which snapshots to keep and which to forget, and why: the decision behind `forget`.
//!
//! The rules mean what restic's `--keep-*` options mean. Within a group (one job of one host) snapshots are seen
//! from the newest to the oldest; a rule keeps the newest snapshot of each of the last *n* hours, days, weeks …
//! that have one, and while such a rule still has some of its count, or of its period, left it also keeps the very
//! oldest snapshot.
//! A snapshot stays if any rule keeps it. Calendar units are those of an explicit time zone; weeks are ISO 8601.
//!
//! Where it differs, it keeps more: the newest *complete* snapshot of a group, the newest one that a drill has
//! proven, and anything on hold always stay; the hour that is repeated when summer time ends counts as two.
//!
//! Invariant: the outcome depends on `now` only through holds and through snapshots that claim to come from the
//! future, which are kept, named as such and never counted. `keep-within` counts back from the group's newest.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Serialize, Serializer};

use super::period::Period;

/// How far a snapshot may lie ahead of `now` before its clock is not believed.
pub const MAX_SKEW: SignedDuration = SignedDuration::from_hours(1);

/// What a decision needs to know of one snapshot.
#[derive(Clone, Debug)]
pub struct Fact<Id> {
    pub id: Id,
    /// The instant the snapshot's data is true for.
    pub time: Timestamp,
    pub tags: Vec<String>,
    /// Something could not be read when it was made.
    pub partial: bool,
    /// A drill restored it and its checks passed.
    pub proven: bool,
    /// Kept whatever the rules say, until this instant.
    pub hold_until: Option<Timestamp>,
    /// Snapshots compete only inside their group: the job and the host, as the caller names them.
    pub group: String,
}

/// How many a rule keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// The rule is off.
    #[default]
    None,
    Count(u32),
    Unlimited,
}

/// Text that is not a count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of snapshots: write a whole number or \"unlimited\"")]
pub struct KeepError(String);

impl FromStr for Keep {
    type Err = KeepError;

    fn from_str(text: &str) -> Result<Self, KeepError> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            "0" => Ok(Self::None),
            _ => text.parse().map(Self::Count).map_err(|_| KeepError(text.to_owned())),
        }
    }
}

impl Keep {
    fn is_left(self) -> bool {
        !matches!(self, Self::None | Self::Count(0))
    }
    fn take_one(&mut self) {
        if let Self::Count(left) = self {
            *left -= 1;
        }
    }
}

/// The unit a rule counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Every snapshot by itself.
    Last,
    Hour,
    Day,
    /// ISO 8601: Monday to Sunday; the week belongs to the year its Thursday is in.
    Week,
    Month,
    Year,
}

/// Names one unit among those of its kind.
type UnitKey = (i64, i64);

impl Unit {
    const ALL: [Unit; 6] = [Unit::Last, Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Year];

    /// Two snapshots with the same key are in the same unit. `place` is the snapshot's rank in its group.
    fn key(self, time: &Zoned, place: usize) -> UnitKey {
        let (year, month, day) = (i64::from(time.year()), i64::from(time.month()), i64::from(time.day()));
        match self {
            Unit::Last => (i64::try_from(place).unwrap_or(i64::MAX), 0),
            // With the offset: the repeated hour in autumn is two hours, an hour that was skipped is none.
            Unit::Hour => {
                let date = (year * 12 + month) * 31 + day;
                (date * 24 + i64::from(time.hour()), i64::from(time.offset().seconds()))
            }
            Unit::Day => (year, month * 31 + day),
            Unit::Week => {
                let week = time.date().iso_week_date();
                (i64::from(week.year()), i64::from(week.week()))
            }
            Unit::Month => (year, month),
            Unit::Year => (year, 0),
        }
    }

    fn adjective(self) -> &'static str {
        match self {
            Unit::Last => "last",
            Unit::Hour => "hourly",
            Unit::Day => "daily",
            Unit::Week => "weekly",
            Unit::Month => "monthly",
            Unit::Year => "yearly",
        }
    }
}

/// What to keep. All rules are independent: a snapshot stays if one of them keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub last: Keep,
    pub hourly: Keep,
    pub daily: Keep,
    pub weekly: Keep,
    pub monthly: Keep,
    pub yearly: Keep,
    /// Everything newer than this before the group's newest snapshot.
    pub within: Option<Period>,
    pub within_hourly: Option<Period>,
    pub within_daily: Option<Period>,
    pub within_weekly: Option<Period>,
    pub within_monthly: Option<Period>,
    pub within_yearly: Option<Period>,
    /// Snapshots that carry all tags of one of these lists; the empty list means those without tags.
    pub tags: Vec<Vec<String>>,
}

impl Rules {
    fn count(&self, unit: Unit) -> Keep {
        match unit {
            Unit::Last => self.last,
            Unit::Hour => self.hourly,
            Unit::Day => self.daily,
            Unit::Week => self.weekly,
            Unit::Month => self.monthly,
            Unit::Year => self.yearly,
        }
    }

    fn within(&self, unit: Unit) -> Option<Period> {
        match unit {
            Unit::Last => self.within,
            Unit::Hour => self.within_hourly,
            Unit::Day => self.within_daily,
            Unit::Week => self.within_weekly,
            Unit::Month => self.within_monthly,
            Unit::Year => self.within_yearly,
        }
    }

    /// Whether no rule would keep anything.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
            && Unit::ALL.iter().all(|&unit| !self.count(unit).is_left() && self.within(unit).is_none())
    }
}

/// Why a snapshot stays. Prints, and serialises, as the words people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The newest of its unit.
    Newest(Unit),
    /// The oldest of the group, kept because this rule still has some of its count left.
    Oldest(Unit),
    /// Recent enough, and the newest of its unit.
    Within(Unit, Period),
    /// The oldest of the group, recent enough, though not the newest of its unit.
    OldestWithin(Unit, Period),
    Tags(Vec<String>),
    Hold(Timestamp),
    /// The newest snapshot of the group in which nothing is missing.
    NewestComplete,
    /// The newest snapshot of the group that a drill has proven.
    NewestProven,
    /// Its time is more than [`MAX_SKEW`] ahead of now.
    Future,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Newest(unit) => write!(f, "{} snapshot", unit.adjective()),
            Reason::Oldest(unit) => write!(f, "oldest {} snapshot", unit.adjective()),
            Reason::Within(Unit::Last, period) => write!(f, "within {period}"),
            Reason::Within(unit, period) => write!(f, "{} within {period}", unit.adjective()),
            Reason::OldestWithin(unit, period) => write!(f, "oldest {} within {period}", unit.adjective()),
            Reason::Tags(tags) if tags.is_empty() => f.write_str("has no tags"),
            Reason::Tags(tags) => write!(f, "has tags {}", tags.join(",")),
            Reason::Hold(until) => write!(f, "on hold until {until}"),
            Reason::NewestComplete => f.write_str("newest complete snapshot"),
            Reason::NewestProven => f.write_str("newest drill-proven snapshot"),
            Reason::Future => f.write_str("dated in the future, not counted"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What would be done: every snapshot given is in exactly one group, and there either kept or forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan<Id> {
    /// Ascending by name.
    pub groups: Vec<GroupPlan<Id>>,
}

/// The decision for one group; both lists begin with the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupPlan<Id> {
    pub group: String,
    pub keep: Vec<Kept<Id>>,
    pub forget: Vec<Id>,
}

/// A snapshot that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept<Id> {
    pub id: Id,
    /// Never empty.
    pub reasons: Vec<Reason>,
}

/// Why no decision, or not this one, is made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// Forgetting everything is never what a forgotten option means.
    #[error("forget has no rule that keeps anything; give at least one keep rule")]
    NoRule,
    /// Exit code 23.
    #[error(
        "retention guard: forgetting {forget_count} of the {total_count} snapshots of {group:?} is more than {max_percent} %"
    )]
    TooMany { group: String, forget_count: usize, total_count: usize, max_percent: u8 },
    /// Exit code 23.
    #[error("retention guard: {group:?} would be left with {left_count} snapshots, fewer than {min_count}")]
    TooFewLeft { group: String, left_count: usize, min_count: usize },
}

/// Decides for every group on its own. `now` only tells expired holds and impossible times.
pub fn plan<Id: Clone + Ord>(
    facts: &[Fact<Id>],
    rules: &Rules,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Plan<Id>, RetentionError> {
    if rules.is_empty() {
        return Err(RetentionError::NoRule);
    }
    let mut groups: BTreeMap<&str, Vec<&Fact<Id>>> = BTreeMap::new();
    for fact in facts {
        groups.entry(&fact.group).or_default().push(fact);
    }
    let groups =
        groups.into_iter().map(|(group, facts)| plan_group(group, facts, rules, zone, now)).collect();
    Ok(Plan { groups })
}

fn plan_group<Id: Clone + Ord>(
    group: &str,
    mut facts: Vec<&Fact<Id>>,
    rules: &Rules,
    zone: &TimeZone,
    now: Timestamp,
) -> GroupPlan<Id> {
    // Newest first. Ids break ties, so that the order in which a store lists snapshots decides nothing.
    facts.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| b.id.cmp(&a.id)));
    let (future, counted): (Vec<_>, Vec<_>) =
        facts.into_iter().partition(|fact| fact.time.duration_since(now) > MAX_SKEW);
    let mut plan = GroupPlan { group: group.to_owned(), keep: Vec::new(), forget: Vec::new() };
    plan.keep
        .extend(future.into_iter().map(|fact| Kept { id: fact.id.clone(), reasons: vec![Reason::Future] }));

    let Some(newest) = counted.first() else { return plan };
    let mut counters = Counters::new(rules, newest.time, zone);
    let newest_complete = counted.iter().position(|fact| !fact.partial);
    let newest_proven = counted.iter().position(|fact| fact.proven);
    for (place, fact) in counted.iter().enumerate() {
        let mut reasons = Vec::new();
        let carries = |tags: &&Vec<String>| match tags.as_slice() {
            [] => fact.tags.is_empty(),
            tags => tags.iter().all(|tag| fact.tags.contains(tag)),
        };
        reasons.extend(rules.tags.iter().filter(carries).cloned().map(Reason::Tags));
        counters.see(fact.time, place, place + 1 == counted.len(), &mut reasons);
        reasons.extend(fact.hold_until.filter(|&until| until > now).map(Reason::Hold));
        // Worth saying only where nothing else keeps it.
        if newest_complete == Some(place) && reasons.is_empty() {
            reasons.push(Reason::NewestComplete);
        }
        if newest_proven == Some(place) {
            reasons.push(Reason::NewestProven);
        }
        if reasons.is_empty() {
            plan.forget.push(fact.id.clone());
        } else {
            plan.keep.push(Kept { id: fact.id.clone(), reasons });
        }
    }
    plan
}

/// What the counting rules remember on their way from the newest to the oldest snapshot.
struct Counters<'a> {
    zone: &'a TimeZone,
    counts: [Count; 6],
    recents: Vec<Recent>,
}

/// Keeps the newest of each unit while something is left.
struct Count {
    unit: Unit,
    left: Keep,
    last_key: Option<UnitKey>,
}

/// Keeps the newest of each unit after `start`.
struct Recent {
    unit: Unit,
    period: Period,
    start: Timestamp,
    last_key: Option<UnitKey>,
}

impl<'a> Counters<'a> {
    fn new(rules: &Rules, newest: Timestamp, zone: &'a TimeZone) -> Self {
        let recents = Unit::ALL.into_iter().filter_map(|unit| {
            let period = rules.within(unit)?;
            Some(Recent { unit, period, start: period.before(newest, zone), last_key: None })
        });
        let counts = Unit::ALL.map(|unit| Count { unit, left: rules.count(unit), last_key: None });
        Self { zone, counts, recents: recents.collect() }
    }

    fn see(&mut self, time: Timestamp, place: usize, is_oldest: bool, reasons: &mut Vec<Reason>) {
        let zoned = time.to_zoned(self.zone.clone());
        for count in self.counts.iter_mut().filter(|count| count.left.is_left()) {
            let key = Some(count.unit.key(&zoned, place));
            if count.last_key != key {
                count.last_key = key;
                count.left.take_one();
                reasons.push(Reason::Newest(count.unit));
            } else if is_oldest {
                reasons.push(Reason::Oldest(count.unit));
            }
        }
        for recent in self.recents.iter_mut().filter(|recent| time > recent.start) {
            let key = Some(recent.unit.key(&zoned, place));
            if recent.last_key != key {
                recent.last_key = key;
                reasons.push(Reason::Within(recent.unit, recent.period));
            } else if is_oldest {
                reasons.push(Reason::OldestWithin(recent.unit, recent.period));
            }
        }
    }
}

/// Limits on what one `forget` may remove, for the day a rule or a clock is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guards {
    /// Refuse when a group would lose more than this share of its snapshots, in per cent.
    pub max_forget_percent: u8,
    /// The share is not looked at up to this many, so small and young groups can be thinned freely.
    pub free_forget_count: usize,
    /// Refuse when a group that loses any would be left with fewer. Snapshots from the future do not count.
    pub min_left_count: usize,
}

impl Default for Guards {
    /// Half of a group, once that is more than ten; and never the last one. A steady schedule forgets a snapshot
    /// or two a day and never meets these; the first run of a new policy on a long history may.
    fn default() -> Self {
        Self { max_forget_percent: 50, free_forget_count: 10, min_left_count: 1 }
    }
}

impl<Id> Plan<Id> {
    /// How many snapshots would be forgotten.
    pub fn forget_count(&self) -> usize {
        self.groups.iter().map(|group| group.forget.len()).sum()
    }

    /// Refuses a plan that removes too much. Not called when the operator overrides the guards.
    pub fn check(&self, guards: &Guards) -> Result<(), RetentionError> {
        for group in &self.groups {
            let future_count = group.keep.iter().filter(|kept| kept.reasons == [Reason::Future]).count();
            let (left_count, forget_count) = (group.keep.len() - future_count, group.forget.len());
            if forget_count > 0 && left_count < guards.min_left_count {
                let (group, min_count) = (group.group.clone(), guards.min_left_count);
                return Err(RetentionError::TooFewLeft { group, left_count, min_count });
            }
            let total_count = left_count + forget_count;
            let share_is_high = forget_count * 100 > total_count * usize::from(guards.max_forget_percent);
            if forget_count > guards.free_forget_count && share_is_high {
                let (group, max_percent) = (group.group.clone(), guards.max_forget_percent);
                return Err(RetentionError::TooMany { group, forget_count, total_count, max_percent });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
