//! Tables for retention: each row is a history, the rules, and who stays.

use super::*;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// Times as people write them in `zone`; the id is the time's own text.
fn history<'a>(zone_name: &str, times: &[&'a str]) -> Vec<Fact<&'a str>> {
    let instant = |time: &str| {
        let civil = time.replace(' ', "T");
        // An explicit offset tells the two halves of a repeated hour apart.
        match civil.parse::<Timestamp>() {
            Ok(timestamp) => timestamp,
            Err(_) => format!("{civil}[{zone_name}]").parse::<Zoned>().unwrap().timestamp(),
        }
    };
    times.iter().map(|time| fact(time, instant(time))).collect()
}

fn fact(id: &str, time: Timestamp) -> Fact<&str> {
    let group = "app@host".to_owned();
    Fact { id, time, tags: Vec::new(), partial: false, proven: false, hold_until: None, group }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const LATER: &str = "2030-01-01T00:00Z";

fn decide<'a>(facts: &[Fact<&'a str>], rules: &Rules, zone_name: &str) -> GroupPlan<&'a str> {
    plan(facts, rules, &zone(zone_name), at(LATER)).unwrap().groups.remove(0)
}

fn kept<'a>(plan: &GroupPlan<&'a str>) -> Vec<&'a str> {
    plan.keep.iter().map(|kept| kept.id).collect()
}

fn reasons(plan: &GroupPlan<&str>, id: &str) -> Vec<String> {
    let kept = plan.keep.iter().find(|kept| kept.id == id).unwrap_or_else(|| panic!("{id} is not kept"));
    kept.reasons.iter().map(Reason::to_string).collect()
}

fn count(n: u32) -> Keep {
    Keep::Count(n)
}

const SUNDAYS: [&str; 12] = [
    "2019-09-01 11:00",
    "2019-09-08 11:00",
    "2019-09-15 11:00",
    "2019-09-22 11:00",
    "2019-09-29 11:00",
    "2019-10-06 11:00",
    "2019-10-13 11:00",
    "2019-10-20 11:00",
    "2019-10-27 11:00",
    "2019-11-03 11:00",
    "2019-11-10 11:00",
    "2019-11-17 11:00",
];

#[test]
fn units_without_a_snapshot_do_not_count() {
    // Twelve Sundays: the last four days that have a snapshot are the last four Sundays.
    let plan = decide(&history("UTC", &SUNDAYS), &Rules { daily: count(4), ..Rules::default() }, "UTC");
    assert_eq!(kept(&plan), ["2019-11-17 11:00", "2019-11-10 11:00", "2019-11-03 11:00", "2019-10-27 11:00"]);
    assert_eq!(plan.forget.len(), 8);
    assert_eq!(reasons(&plan, "2019-11-17 11:00"), ["daily snapshot"]);
}

#[test]
fn each_rule_counts_for_itself_and_every_match_is_named() {
    let rules = Rules { last: count(1), daily: count(2), monthly: count(2), ..Rules::default() };
    let plan = decide(&history("UTC", &SUNDAYS), &rules, "UTC");
    assert_eq!(kept(&plan), ["2019-11-17 11:00", "2019-11-10 11:00", "2019-10-27 11:00"]);
    let newest = ["last snapshot", "daily snapshot", "monthly snapshot"];
    assert_eq!(reasons(&plan, "2019-11-17 11:00"), newest);
}

#[test]
fn the_oldest_stays_while_a_rule_has_some_of_its_count_left() {
    let rules = Rules { yearly: count(2), ..Rules::default() };
    let plan = decide(&history("UTC", &SUNDAYS), &rules, "UTC");
    assert_eq!(kept(&plan), ["2019-11-17 11:00", "2019-09-01 11:00"]);
    assert_eq!(reasons(&plan, "2019-09-01 11:00"), ["oldest yearly snapshot"]);
    // With the count used up it does not.
    let plan = decide(&history("UTC", &SUNDAYS), &Rules { yearly: count(1), ..Rules::default() }, "UTC");
    assert_eq!(kept(&plan), ["2019-11-17 11:00"]);
}

#[test]
fn a_century_of_days_leaves_the_documented_few() {
    let mut date: jiff::civil::Date = "1926-01-01".parse().unwrap();
    let mut dates = Vec::new();
    while dates.last() != Some(&"2025-12-31".to_owned()) {
        dates.push(date.to_string());
        date = date.tomorrow().unwrap();
    }
    let times: Vec<String> = dates.iter().map(|date| format!("{date} 12:00")).collect();
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    let rules = Rules {
        daily: count(7),
        weekly: count(5),
        monthly: count(12),
        yearly: count(75),
        ..Rules::default()
    };
    let plan = decide(&history("UTC", &times), &rules, "UTC");
    let with = |unit| plan.keep.iter().filter(|kept| kept.reasons.contains(&Reason::Newest(unit))).count();
    assert_eq!([Unit::Day, Unit::Week, Unit::Month, Unit::Year].map(with), [7, 5, 12, 75]);
    // Seven days (31 to 25 December); of the weeks' ends 31 and 28 are among them, so three more; December's end
    // is, so eleven more months; 2025's end is, so 74 more years.
    assert_eq!(plan.keep.len(), 7 + 3 + 11 + 74);
}

#[test]
fn unlimited_keeps_the_newest_of_every_unit() {
    let times = ["2026-01-31 10:00", "2026-02-01 09:00", "2026-02-01 10:00", "2026-02-28 10:00"];
    let rules = Rules { monthly: Keep::Unlimited, ..Rules::default() };
    let plan = decide(&history("UTC", &times), &rules, "UTC");
    assert_eq!(kept(&plan), ["2026-02-28 10:00", "2026-01-31 10:00"]);
}

#[test]
fn iso_week_53_belongs_to_the_year_of_its_thursday() {
    // 2020 has a week 53, from Monday 2020-12-28 to Sunday 2021-01-03; 2021-01-04 begins week 1.
    let times =
        ["2020-12-27 12:00", "2020-12-28 12:00", "2021-01-01 12:00", "2021-01-03 12:00", "2021-01-04 12:00"];
    let rules = Rules { weekly: Keep::Unlimited, ..Rules::default() };
    let plan = decide(&history("UTC", &times), &rules, "UTC");
    assert_eq!(kept(&plan), ["2021-01-04 12:00", "2021-01-03 12:00", "2020-12-27 12:00"]);
    // The yearly rule goes by the calendar, not by the week's year.
    let rules = Rules { yearly: Keep::Unlimited, ..Rules::default() };
    let plan = decide(&history("UTC", &times[1..]), &rules, "UTC");
    assert_eq!(kept(&plan), ["2021-01-04 12:00", "2020-12-28 12:00"]);
}

#[test]
fn the_hour_repeated_in_autumn_is_two_hours_but_one_day() {
    // Berlin, 2026-10-25: 02:30 comes twice, first at UTC+2.
    let times = ["2026-10-25T02:10+02:00", "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"];
    let rules = Rules { hourly: Keep::Unlimited, ..Rules::default() };
    let plan = decide(&history("Europe/Berlin", &times), &rules, "Europe/Berlin");
    assert_eq!(kept(&plan)[..2], ["2026-10-25T02:30+01:00", "2026-10-25T02:30+02:00"]);
    assert_eq!(reasons(&plan, "2026-10-25T02:10+02:00"), ["oldest hourly snapshot"]);
    let rules = Rules { daily: count(1), ..Rules::default() };
    let plan = decide(&history("Europe/Berlin", &times), &rules, "Europe/Berlin");
    assert_eq!(kept(&plan), ["2026-10-25T02:30+01:00"]);
}

#[test]
fn the_zone_decides_which_day_it_is() {
    // Both on 29 March in UTC; in Auckland the second is already the 30th.
    let times = ["2026-03-29T10:30Z", "2026-03-29T11:30Z"];
    let rules = Rules { daily: count(2), ..Rules::default() };
    let utc = decide(&history("UTC", &times), &rules, "UTC");
    assert_eq!(reasons(&utc, times[0]), ["oldest daily snapshot"]);
    let auckland = decide(&history("UTC", &times), &rules, "Pacific/Auckland");
    assert_eq!(reasons(&auckland, times[0]), ["daily snapshot"]);
}

#[test]
fn within_counts_back_from_the_newest_and_never_from_now() {
    let times = ["2026-03-20 12:00", "2026-03-21 12:00", "2026-03-21 18:00", "2026-03-28 12:00"];
    let rules = Rules { within: Some("7d".parse().unwrap()), ..Rules::default() };
    let plan = decide(&history("UTC", &times), &rules, "UTC");
    // Exactly seven days is no longer within.
    assert_eq!(kept(&plan), ["2026-03-28 12:00", "2026-03-21 18:00"]);
    assert_eq!(reasons(&plan, "2026-03-21 18:00"), ["within 7d"]);

    let rules = Rules { within_daily: Some("8d".parse().unwrap()), ..Rules::default() };
    let plan = decide(&history("UTC", &times), &rules, "UTC");
    assert_eq!(kept(&plan), ["2026-03-28 12:00", "2026-03-21 18:00"]);
    assert_eq!(reasons(&plan, "2026-03-21 18:00"), ["daily within 8d"]);
}

#[test]
fn a_period_that_reaches_past_the_oldest_keeps_it() {
    let times = ["2026-03-01 12:00", "2026-03-02 12:00", "2026-03-03 12:00"];
    let rules = Rules { within_monthly: Some("1y".parse().unwrap()), ..Rules::default() };
    let plan = decide(&history("UTC", &times), &rules, "UTC");
    assert_eq!(kept(&plan), [times[2], times[0]]);
    assert_eq!(reasons(&plan, times[0]), ["oldest monthly within 1y"]);
}

#[test]
fn snapshots_of_one_second_are_told_apart_by_id_whatever_their_order() {
    let second = at("2026-01-01T00:00:00Z");
    let mut facts = vec![fact("b", second), fact("c", second), fact("a", second)];
    let rules = Rules { last: count(2), ..Rules::default() };
    assert_eq!(kept(&decide(&facts, &rules, "UTC")), ["c", "b"]);
    facts.reverse();
    assert_eq!(kept(&decide(&facts, &rules, "UTC")), ["c", "b"]);
    let rules = Rules { daily: count(1), ..Rules::default() };
    assert_eq!(kept(&decide(&facts, &rules, "UTC")), ["c"]);
}

#[test]
fn tags_keep_without_using_up_a_count() {
    let mut facts = history("UTC", &["2026-01-01 12:00", "2026-01-02 12:00", "2026-01-03 12:00"]);
    facts[0].tags = vec!["release".into(), "v1".into()];
    facts[1].tags = vec!["release".into()];
    let both = vec!["v1".to_owned(), "release".to_owned()];
    let rules = Rules { last: count(1), tags: vec![both], ..Rules::default() };
    let plan = decide(&facts, &rules, "UTC");
    assert_eq!(kept(&plan), ["2026-01-03 12:00", "2026-01-01 12:00"]);
    assert_eq!(reasons(&plan, "2026-01-01 12:00"), ["has tags v1,release"]);
    // The empty list is the snapshots without tags.
    let rules = Rules { tags: vec![vec![]], ..Rules::default() };
    assert_eq!(kept(&decide(&facts[1..], &rules, "UTC")), ["2026-01-03 12:00"]);
}

#[test]
fn a_hold_ends_at_its_instant() {
    let mut facts = history("UTC", &["2026-01-01 12:00", "2026-01-02 12:00", "2026-01-03 12:00"]);
    facts[0].hold_until = Some(at("2030-01-01T00:00:01Z"));
    facts[1].hold_until = Some(at(LATER));
    let plan = decide(&facts, &Rules { last: count(1), ..Rules::default() }, "UTC");
    assert_eq!(kept(&plan), ["2026-01-03 12:00", "2026-01-01 12:00"]);
    assert_eq!(reasons(&plan, "2026-01-01 12:00"), ["on hold until 2030-01-01T00:00:01Z"]);
}

#[test]
fn partial_snapshots_age_and_never_push_out_the_newest_complete_one() {
    let mut facts =
        history("UTC", &["2026-01-01 12:00", "2026-01-02 12:00", "2026-01-03 12:00", "2026-01-04 12:00"]);
    facts[2].partial = true;
    facts[3].partial = true;
    let plan = decide(&facts, &Rules { last: count(1), ..Rules::default() }, "UTC");
    assert_eq!(kept(&plan), ["2026-01-04 12:00", "2026-01-02 12:00"]);
    assert_eq!(reasons(&plan, "2026-01-02 12:00"), ["newest complete snapshot"]);
}

#[test]
fn the_newest_proven_snapshot_always_stays() {
    let mut facts = history("UTC", &["2026-01-01 12:00", "2026-01-02 12:00", "2026-01-03 12:00"]);
    facts[0].proven = true;
    facts[1].proven = true;
    let plan = decide(&facts, &Rules { last: count(1), ..Rules::default() }, "UTC");
    assert_eq!(kept(&plan), ["2026-01-03 12:00", "2026-01-02 12:00"]);
    assert_eq!(reasons(&plan, "2026-01-02 12:00"), ["newest drill-proven snapshot"]);
}

#[test]
fn a_snapshot_from_the_future_is_kept_and_pushes_nothing_out() {
    let now = at("2026-01-03T12:00Z");
    let mut facts = history("UTC", &["2026-01-01 12:00", "2026-01-02 12:00", "2026-01-03 13:00"]);
    facts.push(fact("impossible", at("2027-01-01T00:00Z")));
    let rules = Rules { last: count(1), within: Some("1d".parse().unwrap()), ..Rules::default() };
    let plan = plan(&facts, &rules, &TimeZone::UTC, now).unwrap().groups.remove(0);
    // An hour ahead is still believed; a year is not, and neither `last` nor `within` looks at it.
    assert_eq!(kept(&plan), ["impossible", "2026-01-03 13:00"]);
    assert_eq!(reasons(&plan, "impossible"), ["dated in the future, not counted"]);
    assert_eq!(plan.forget.len(), 2);
}

#[test]
fn groups_do_not_compete() {
    let mut facts = history("UTC", &["2026-01-01 12:00", "2026-01-02 12:00", "2026-01-03 12:00"]);
    facts[0].group = "db@host".into();
    let rules = Rules { last: count(1), ..Rules::default() };
    let plan = plan(&facts, &rules, &TimeZone::UTC, at(LATER)).unwrap();
    let groups: Vec<_> = plan.groups.iter().map(|group| (group.group.as_str(), kept(group))).collect();
    assert_eq!(groups, [("app@host", vec!["2026-01-03 12:00"]), ("db@host", vec!["2026-01-01 12:00"])]);
    assert_eq!(plan.forget_count(), 1);
}

#[test]
fn no_rule_is_refused_rather_than_obeyed() {
    let facts = history("UTC", &["2026-01-01 12:00"]);
    for rules in [Rules::default(), Rules { last: count(0), ..Rules::default() }] {
        assert_eq!(plan(&facts, &rules, &TimeZone::UTC, at(LATER)), Err(RetentionError::NoRule));
    }
}

#[test]
fn the_guards_stop_what_a_steady_schedule_never_does() {
    let days: Vec<String> = (1..=28).map(|day| format!("2026-02-{day:02} 12:00")).collect();
    let days: Vec<&str> = days.iter().map(String::as_str).collect();
    let facts = history("UTC", &days);
    let outcome = |keep, guards: &Guards| {
        let rules = Rules { last: count(keep), ..Rules::default() };
        plan(&facts, &rules, &TimeZone::UTC, at(LATER)).unwrap().check(guards)
    };
    let default = Guards::default();
    assert_eq!(outcome(14, &default), Ok(()), "half is not more than half");
    let too_many = |forget_count| RetentionError::TooMany {
        group: "app@host".into(),
        forget_count,
        total_count: 28,
        max_percent: 50,
    };
    assert_eq!(outcome(13, &default), Err(too_many(15)));
    assert_eq!(outcome(13, &Guards { free_forget_count: 15, ..default }), Ok(()));
    let guards = Guards { max_forget_percent: 100, min_left_count: 3, ..default };
    assert_eq!(outcome(3, &guards), Ok(()));
    let too_few = RetentionError::TooFewLeft { group: "app@host".into(), left_count: 2, min_count: 3 };
    assert_eq!(outcome(2, &guards), Err(too_few));
}

#[test]
fn the_guard_sees_a_group_emptied_behind_a_future_snapshot() {
    let mut facts = history("UTC", &["2026-01-01 12:00"]);
    facts[0].partial = true;
    facts.push(fact("impossible", at("2099-01-01T00:00Z")));
    let rules = Rules { tags: vec![vec!["none has it".into()]], ..Rules::default() };
    let plan = plan(&facts, &rules, &TimeZone::UTC, at(LATER)).unwrap();
    assert!(matches!(plan.check(&Guards::default()), Err(RetentionError::TooFewLeft { left_count: 0, .. })));
}

#[test]
fn counts_read_as_written() {
    assert_eq!("unlimited".parse(), Ok(Keep::Unlimited));
    assert_eq!("0".parse(), Ok(Keep::None));
    assert_eq!("7".parse(), Ok(Keep::Count(7)));
    for text in ["", "-1", "seven", "4294967296"] {
        assert_eq!(text.parse::<Keep>(), Err(KeepError(text.into())));
    }
}

#[test]
fn a_plan_serialises_with_the_words_people_read() {
    let plan =
        decide(&history("UTC", &["2026-01-01 12:00"]), &Rules { last: count(1), ..Rules::default() }, "UTC");
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["keep"][0]["reasons"][0], "last snapshot");
}
