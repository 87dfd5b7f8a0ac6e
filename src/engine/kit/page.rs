//! The kit on one sheet of A4: what to do, and the kit itself as codes for a camera. Self-contained: no scripts,
//! nothing loaded from anywhere. The file is a kit too: it holds the codes' texts, which no printer shows.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use qrcode::types::Color;
use qrcode::{EcLevel, QrCode};

use crate::engine::EngineError;
use crate::repo::kit::{Kit, scan};

/// Characters in a code: error correction M at version 23, whose modules are half a millimetre and more on the page.
const CODE_CHARS: usize = 1200;
/// Codes that fit on the sheet.
const CODES_LIMIT: usize = 6;
/// Modules around a code that stay white.
const QUIET: usize = 4;

const STYLE: &str = "
@page{size:A4;margin:12mm}
*{box-sizing:border-box}
body{font:10.5pt/1.35 system-ui,'Helvetica Neue',Arial,sans-serif;color:#000;background:#fff;margin:0 auto;max-width:186mm;padding:4mm 0}
h1{font-size:17pt;margin:0;letter-spacing:-.01em}h2{font-size:11pt;margin:4mm 0 1mm}
p{margin:.6mm 0}.soft{color:#444}.sub{color:#444;margin-bottom:2mm}
.rule{border:0;border-top:.4mm solid #000;margin:2.5mm 0}
table{border-collapse:collapse;width:100%}td{padding:.5mm 3mm .5mm 0;vertical-align:top;overflow-wrap:anywhere}td:first-child{white-space:nowrap;color:#444;width:1%}
code{font:9.5pt/1.3 ui-monospace,'DejaVu Sans Mono',Menlo,monospace;overflow-wrap:anywhere}
ol{margin:1mm 0;padding-left:6mm}li{margin:.6mm 0}
.codes{display:grid;gap:3mm 5mm;margin-top:2mm;justify-content:center}
figure{margin:0;text-align:center;break-inside:avoid}figure svg{width:100%;height:auto;display:block}figcaption{font-size:9pt}
.blank td{padding-top:3.2mm}.blank td+td{border-bottom:.25mm solid #555}
@media screen and (max-width:600px){body{padding:4mm}.codes{grid-template-columns:1fr!important}}
@media screen{body{padding:8mm 4mm}}
";

/// The texts of the codes on the page, and whether the configuration file had to be left out of them.
pub fn codes(kit: &Kit) -> (Vec<String>, bool) {
    let whole = scan::codes(kit, CODE_CHARS);
    if whole.len() <= CODES_LIMIT || kit.config.is_none() {
        return (whole, false);
    }
    (scan::codes(&Kit { config: None, ..kit.clone() }, CODE_CHARS), true)
}

/// Writes it.
///
/// # Errors
/// The kit does not fit into codes.
pub fn page(kit: &Kit) -> Result<String, EngineError> {
    let (codes, lacks_config) = codes(kit);
    let drawn: Vec<Markup> = codes.iter().map(|code| draw(code)).collect::<Result<_, _>>()?;
    let columns = match codes.len() {
        1 => "80mm",
        2 => "78mm 78mm",
        4 => "68mm 68mm",
        _ => "58mm 58mm 58mm",
    };
    let [prove, list, restore, verify] = kit.commands("kit.txt");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Lifeboat recovery kit " (kit.made.get(..10).unwrap_or(&kit.made)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Lifeboat recovery kit" }
                p.sub {
                    "Everything needed to open the backups except the password. Print it, and keep it where the backups \
                     are not."
                }
                table {
                    tr { td { "Repository" } td { code { (kit.repo) } } }
                    @for (at, address) in kit.addresses.iter().enumerate() {
                        tr { td { @if at == 0 { "Backups at" } @else { "Replica at" } } td { code { (address) } } }
                    }
                    tr { td { "Made" } td { (kit.made) } }
                    tr { td { "Opens with" } td { (opens_with(kit)) } }
                    @for (key, host) in kit.drill_keys() {
                        tr { td { "Drill key, " (host) } td { code { (key) } } }
                    }
                }
                hr.rule;
                h2 { "To have everything back on a machine that has nothing" }
                ol {
                    li { "Install lifeboat " (env!("CARGO_PKG_VERSION")) " or newer." }
                    li {
                        "Scan " @if codes.len() == 1 { "the code" } @else { "all " (codes.len()) " codes" }
                        " below with any reader (a telephone; or " code { "zbarimg --raw scan.png" } "), and save what they say, "
                        "one code a line in any order, as " code { "kit.txt" } "."
                    }
                    li { "Give the machine the storage’s own credentials, as for every use of this address." }
                    li { code { (prove) } " asks for the password and says whether all is well." }
                    li { code { (list) } }
                    li { code { (restore) } }
                    li { code { (verify) } }
                }
                div.codes style=(format!("grid-template-columns:{columns}")) {
                    @for (at, code) in drawn.iter().enumerate() {
                        figure { (code) figcaption { "Code " (at + 1) " of " (codes.len()) } }
                    }
                }
                @if lacks_config {
                    p.soft { "The configuration file is too long for the codes; this page’s file and the kit as text have it." }
                }
                table.blank {
                    tr { td { "The password is kept by" } td {} }
                    tr { td { "The storage’s credentials are kept by" } td {} }
                    tr { td { "Last opened (date, by whom)" } td {} }
                }
                p.soft {
                    "Whoever finds this sheet learns where the backups are and the labels of keys; it opens nothing without the \
                     password. Make a new one after every " (super::OUTDATED_BY) "."
                }
                // The kit for `--kit`, also where a camera is not at hand. Whole, whatever the codes leave out.
                pre hidden { @for code in scan::codes(kit, CODE_CHARS) { (code) "\n" } }
            }
        }
    };
    Ok(page.into_string())
}

fn opens_with(kit: &Kit) -> String {
    let of = |slot: &crate::seal::slot::Slot| {
        let what = if slot.info.memory_kib > 0 { "password" } else { "key file" };
        match slot.info.label.as_str() {
            "" => format!("the owner’s {what}"),
            label => format!("the owner’s {what}; its key slot is called “{label}”"),
        }
    };
    kit.slots().iter().map(of).collect::<Vec<_>>().join(", or ")
}

/// One path: a square for every run of dark modules.
fn draw(text: &str) -> Result<Markup, EngineError> {
    use std::fmt::Write as _;
    let code = QrCode::with_error_correction_level(text, EcLevel::M);
    let code = code.map_err(|error| EngineError::Source(format!("the kit fits no QR code: {error}")))?;
    let (side, modules) = (code.width(), code.to_colors());
    let mut path = String::new();
    for (y, row) in modules.chunks(side).enumerate() {
        let mut x = 0;
        while x < side {
            let run = row[x..].iter().take_while(|module| **module == Color::Dark).count();
            if run > 0 {
                let _ = write!(path, "M{} {}h{run}v1h-{run}z", x + QUIET, y + QUIET);
            }
            x += run.max(1);
        }
    }
    let all = side + 2 * QUIET;
    Ok(html! {
        svg viewBox=(format!("0 0 {all} {all}")) shape-rendering="crispEdges" role="img" aria-label="QR code" {
            rect width=(all) height=(all) fill="#fff" {}
            path d=(path) fill="#000" {}
        }
    })
}
