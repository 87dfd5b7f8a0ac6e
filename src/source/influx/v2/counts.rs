//! The points of a bucket by measurement and field, as a query answers them: [annotated CSV] without annotations.
//!
//! The header is said once for each run of tables that have the same columns, after an empty line. An error in the
//! middle of an answer comes as a table of its own, in an answer that says 200.
//!
//! [annotated CSV]: https://docs.influxdata.com/influxdb/v2/reference/syntax/annotated-csv/

use std::collections::BTreeMap;

/// Points by measurement and field.
pub type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// Most columns of a table: those that are asked for are five.
const COLUMNS_LIMIT: usize = 1000;

/// Why an answer gives no counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCounts {
    #[error("{0}")]
    Server(String),
    #[error("the answer is not what was asked for: {0}")]
    Malformed(&'static str),
}

/// Flux for the points of a bucket until an instant that is not counted itself. `id`: sixteen hexadecimal digits.
pub fn query(id: &str, until: &str) -> String {
    // Counted by series first: fields of one name may have values of several types, which no table has together.
    format!(
        "from(bucketID: \"{id}\") |> range(start: 1970-01-01T00:00:00Z, stop: {until}) |> count() \
         |> group(columns: [\"_measurement\", \"_field\"]) |> sum()"
    )
}

/// The next row's fields ([RFC 4180]), and what follows it.
///
/// [RFC 4180]: https://www.rfc-editor.org/rfc/rfc4180
fn row(text: &str) -> Result<(Vec<String>, &str), NoCounts> {
    let (mut fields, mut rest) = (Vec::new(), text);
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let end = quoted.find('"').ok_or(NoCounts::Malformed("a quote is not closed"))?;
                field.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                match quoted.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        quoted = more;
                    }
                    None => break,
                }
            }
            rest = quoted;
        } else {
            let end = rest.find([',', '\n']).unwrap_or(rest.len());
            let bare = &rest[..end];
            field.push_str(if rest[end..].starts_with(',') { bare } else { bare.trim_end_matches('\r') });
            rest = &rest[end..];
        }
        fields.push(field);
        if fields.len() > COLUMNS_LIMIT {
            return Err(NoCounts::Malformed("a row has too many columns"));
        }
        if let Some(more) = rest.strip_prefix(',') {
            rest = more;
            continue;
        }
        let rest = rest.strip_prefix('\r').unwrap_or(rest);
        return match rest.strip_prefix('\n') {
            Some(rest) => Ok((fields, rest)),
            None if rest.is_empty() => Ok((fields, rest)),
            None => Err(NoCounts::Malformed("something follows a quote")),
        };
    }
}

/// Reads an answer.
///
/// # Errors
/// The server's own, or an answer that is none to [`query`].
pub fn read(answer: &[u8]) -> Result<Counts, NoCounts> {
    let mut rest = std::str::from_utf8(answer).map_err(|_| NoCounts::Malformed("it is not UTF-8"))?;
    let (mut counts, mut header) = (Counts::new(), None::<Vec<String>>);
    while !rest.is_empty() {
        let (fields, more) = row(rest)?;
        rest = more;
        if fields.len() == 1 && fields[0].is_empty() {
            header = None;
            continue;
        }
        if fields[0].starts_with('#') {
            continue;
        }
        let Some(header) = &header else {
            header = Some(fields);
            continue;
        };
        let column = |name: &str| {
            let place = header.iter().position(|column| column == name)?;
            fields.get(place).map(String::as_str)
        };
        if let Some(error) = column("error") {
            return Err(NoCounts::Server(error.to_owned()));
        }
        let (Some(measurement), Some(field), Some(value)) =
            (column("_measurement"), column("_field"), column("_value"))
        else {
            return Err(NoCounts::Malformed("a column is missing"));
        };
        let points: u64 = value.parse().map_err(|_| NoCounts::Malformed("a count is no number"))?;
        let of_field = counts.entry(measurement.to_owned()).or_default().entry(field.to_owned()).or_default();
        *of_field = of_field.saturating_add(points);
    }
    Ok(counts)
}

/// All points.
pub fn total(counts: &Counts) -> u64 {
    counts.values().flat_map(BTreeMap::values).fold(0, |sum, points| sum.saturating_add(*points))
}

/// The first field that has fewer points than it had, and in words what is wrong with it.
pub fn missing(expected: &Counts, got: &Counts) -> Option<String> {
    expected.iter().find_map(|(measurement, fields)| {
        fields.iter().find_map(|(field, expected)| {
            let found = got.get(measurement).and_then(|found| found.get(field)).copied().unwrap_or_default();
            let wrong =
                || format!("field {field:?} of {measurement:?} has {found} points, and had {expected}");
            (found < *expected).then(wrong)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[(&str, &str, u64)]) -> Counts {
        let mut counts = Counts::new();
        for (measurement, field, points) in rows {
            counts.entry((*measurement).into()).or_default().insert((*field).into(), *points);
        }
        counts
    }

    #[test]
    fn tables_of_all_sorts_are_counted() {
        let answer = "#datatype,string,long,string,string,long\r\n,result,table,_measurement,_field,_value\r\n\
            ,_result,0,cpu,v,3\r\n,_result,1,\"a,\"\"b\"\"\r\nc\",s,4\r\n\r\n,result,table,_field,_measurement,_value,x\r\n\
            ,_result,2,v,cpu,2,\r\n\r\n";
        assert_eq!(read(answer.as_bytes()), Ok(of(&[("cpu", "v", 5), ("a,\"b\"\r\nc", "s", 4)])));
        assert_eq!(read(answer.replace("\r\n", "\n").as_bytes()).map(|counts| total(&counts)), Ok(9));
        for nothing in ["", "\r\n", "\n\n"] {
            assert_eq!(read(nothing.as_bytes()), Ok(Counts::new()));
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error_and_never_a_count() {
        let error = "error,reference\r\n\"timed, out\",897\r\n";
        assert_eq!(read(error.as_bytes()), Err(NoCounts::Server("timed, out".into())));
        let late = format!("a,_measurement,_field,_value\n,m,f,1\n\n{error}");
        assert_eq!(read(late.as_bytes()), Err(NoCounts::Server("timed, out".into())));
        for wrong in [
            "a,_measurement,_field,_value\n,m,f,x\n",
            "a,_measurement,_field,_value\n,m,f,-1\n",
            "a,_measurement,_field,_value\n,m\n",
            "<html>\nno\n",
            "a,\"b",
            "a,\"b\"c\n",
        ] {
            assert!(matches!(read(wrong.as_bytes()), Err(NoCounts::Malformed(_))), "{wrong}");
        }
        assert!(read(&vec![b','; 5000]).is_err());
        assert!(read(&[0xff]).is_err());
    }

    #[test]
    fn fewer_points_are_missed_and_more_are_not() {
        let had = of(&[("m", "a", 2), ("n", "b", 1)]);
        assert_eq!(missing(&had, &had), None);
        assert_eq!(missing(&had, &of(&[("m", "a", 9), ("n", "b", 1), ("o", "c", 1)])), None);
        let wrong = missing(&had, &of(&[("m", "a", 2)])).unwrap();
        assert_eq!(wrong, "field \"b\" of \"n\" has 0 points, and had 1");
    }
}
