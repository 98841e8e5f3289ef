//! The page that `dbp-host report` writes: what can be said of its text, and what a browser makes of it.
//!
//! Chromium and chromedriver (Debian: chromium, chromium-driver) are looked for in PATH. Without them the browser's part says
//! that it was skipped; `DBP_CHROMIUM=/usr/bin/chromium` makes their absence a failure, as `.ci/run` does.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.
#![allow(clippy::print_stderr)] // What was skipped.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

#[path = "report_page/browser.rs"]
mod browser;
#[path = "report_page/made_up.rs"]
mod made_up;
#[path = "report_page/markup.rs"]
mod markup;
mod report_runs;

use browser::Browser;
use report_runs::{Made, parent};

/// The made-up report as a page in a folder of its own.
fn page() -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("reconstruction-000020.png");
    draw(&picture);
    let html = made_up::report(&picture).html();
    let path = folder.path().join("report.html");
    fs::write(&path, &html).unwrap();
    (folder, path, html)
}

fn draw(path: &Path) {
    image::RgbImage::from_fn(192, 64, |x, y| image::Rgb([x as u8, y as u8 * 4, 128])).save(path).unwrap();
}

/// What the program writes of six runs, three seeds of each of two arms, beside one that is broken.
fn page_of_runs(folder: &Path) -> PathBuf {
    let layers =
        vec![("encoder.patch_embed.proj", 0.02), ("encoder.blocks.0.attn.qkv", 0.004), ("encoder.norm", 0.003)];
    let mut runs = Vec::new();
    for seed in 0..3 {
        let losses = |gain: f64| [0.9, 0.8, 0.72, 0.7].map(|loss| loss - gain + 0.01 * seed as f64 * loss);
        runs.push(Made::cell("compare", json!({ "arm": "bp" }), seed, &losses(0.0)));
        let decorrelated = Made::cell("compare", json!({ "arm": "dbp" }), seed, &losses(0.07 + 0.01 * seed as f64));
        runs.push(Made { seconds_per_step: 0.55, layers: layers.clone(), ..decorrelated });
    }
    let grids = json!([{
        "name": "compare", "title": "BP against DBP", "text": "Does decorrelation train sooner?",
        "baseline": { "arm": "bp" }, "settings": [{ "arm": "bp" }, { "arm": "dbp" }], "seeds": [0, 1, 2],
    }]);
    let parent = parent(&folder.join("runs"), &runs, grids);
    for run in fs::read_dir(&parent).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        fs::create_dir(run.join("pictures")).unwrap();
        draw(&run.join("pictures/reconstruction-000200.png"));
    }
    let broken = folder.join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("run.json"), "{ \"name\": ").unwrap();
    let page = folder.join("page.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.arg("report").args([&parent, &broken]).arg("--out").arg(&page).stdin(Stdio::null());
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    page
}

#[test]
fn tags_are_closed_names_are_unique_and_links_lead_somewhere() {
    let (_folder, _, html) = page();
    let elements = markup::read(&html).unwrap();
    let count = |name: &str| elements.iter().filter(|element| element.name == name).count();
    assert_eq!((count("html"), count("h1"), count("script"), count("style")), (1, 1, 1, 1));
    assert_eq!((count("figure"), count("table"), count("img")), (6, 1, 1));
    let ids: Vec<&str> = elements.iter().filter_map(|element| element.get("id")).collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    let links: Vec<&str> = elements.iter().filter_map(|element| element.get("href")?.strip_prefix('#')).collect();
    assert_eq!(links.len(), 5);
    assert!(links.iter().all(|link| unique.contains(link)), "{links:?} in {ids:?}");
    let labels = elements.iter().filter_map(|element| element.get("for"));
    assert!(labels.into_iter().all(|label| unique.contains(label)));
}

#[test]
fn the_page_refers_to_nothing_outside_it() {
    let (_folder, _, html) = page();
    let elements = markup::read(&html).unwrap();
    for element in &elements {
        assert!(
            !["iframe", "object", "embed", "audio", "video", "base", "form", "use"].contains(&element.name.as_str())
        );
        for (key, value) in &element.attributes {
            let inside = value.starts_with('#') || value.starts_with("data:");
            assert!(!["src", "href", "srcset", "action"].contains(&key.as_str()) || inside, "{key}={value}");
            assert!(!key.starts_with("on"), "{key} in <{}", element.name);
        }
    }
    let policy = elements.iter().find(|element| element.get("http-equiv") == Some("Content-Security-Policy")).unwrap();
    assert!(policy.get("content").unwrap().starts_with("default-src 'none';"));
    let own = html.replace("http://www.w3.org/2000/svg", ""); // A name, never asked for.
    for far in ["http:", "https:", "url(", "@import", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!own.contains(far), "{far} in the page");
    }
}

#[test]
fn names_stay_text_and_the_same_report_is_the_same_page() {
    let (folder, _, html) = page();
    assert!(!html.contains("<script>document"), "a name became a script");
    assert!(html.contains("&lt;script&gt;document.title = &#39;taken&#39;&lt;/script&gt;"));
    assert!(!html.contains('\u{202e}'), "a name may not turn the page's direction");
    assert!(html.contains("/nowhere/at-all.png could not be read"), "a missing picture is named");
    assert_eq!(made_up::report(&folder.path().join("reconstruction-000020.png")).html(), html);
}

#[test]
fn a_report_without_figures_is_a_page_too() {
    let empty = dbp_host::report::Report {
        title: "Nothing yet".into(),
        summary: String::new(),
        sections: Vec::new(),
        problems: Vec::new(),
    };
    assert!(markup::read(&empty.html()).is_ok());
    let mut chart = made_up::curves(&["bp".to_owned()]);
    for series in chart.views.iter_mut().flat_map(|view| &mut view.series) {
        for point in &mut series.points {
            (point.x, point.band) = (f64::NAN, Some((f64::NEG_INFINITY, -1.0)));
        }
        (series.runs, series.marks) = (vec![Vec::new()], Vec::new());
    }
    chart.views.push(chart.views[0].clone());
    let drawn = dbp_host::report::svg::lines::draw(&chart);
    assert!(drawn.len() == 3 && drawn[0].contains("nothing was recorded"), "{drawn:?}");
}

/// What does not fit into `width`, what is drawn without a size, and how much is drawn at all.
const MEASURE: &str = r#"
    const inside = document.documentElement.clientWidth;
    const shown = (e) => e.getClientRects().length > 0;
    const figures = Array.from(document.querySelectorAll("figure"));
    const drawings = Array.from(document.querySelectorAll("figure svg.chart, figure img")).filter(shown);
    const clipped = (e) => e.closest(".scroll") !== null;
    const wide = Array.from(document.querySelectorAll("body *")).filter((e) => {
        const box = e.getBoundingClientRect();
        return box.width > 0 && !clipped(e) && (box.right > inside + 1 || box.left < -1);
    });
    return {
        scroll: document.documentElement.scrollWidth - inside,
        wide: wide.map((e) => `${e.tagName} ${e.getAttribute("class")} ${e.textContent.slice(0, 40)}`),
        empty: figures.filter((f) => { const b = f.getBoundingClientRect(); return b.width < 200 || b.height < 40; }).length,
        flat: drawings.filter((d) => { const b = d.getBoundingClientRect(); return b.width < 100 || b.height < 30; }).length,
        drawings: drawings.length,
        drawable: figures.filter((f) => f.querySelector("svg.chart, img") !== null).length,
        unloaded: Array.from(document.images).filter((i) => !i.complete || i.naturalWidth === 0).length,
        ink: getComputedStyle(document.body).color,
        page: getComputedStyle(document.body).backgroundColor,
        line: getComputedStyle(document.querySelector("path.line.a1")).stroke,
        level: getComputedStyle(document.querySelector(".h15")).fill,
    };
"#;

#[test]
fn the_page_of_runs_has_every_kind_of_figure() {
    let folder = tempfile::tempdir().unwrap();
    let html = fs::read_to_string(page_of_runs(folder.path())).unwrap();
    let elements = markup::read(&html).unwrap();
    for class in ["lines", "heat-map", "dot-chart"] {
        let found = elements.iter().filter(|element| element.name == "figure" && element.get("class") == Some(class));
        assert!(found.count() > 0, "no figure of class {class}");
    }
    let with = |class: &str| {
        elements.iter().filter(|e| e.get("class").is_some_and(|all| all.split(' ').any(|one| one == class))).count()
    };
    assert_eq!((with("picture"), with("problems"), with("command")), (2, 1, 1));
    assert!(with("headline") >= 3, "time, energy, CO₂");
    assert!(html.contains("broken") && html.contains("<b>Left out</b>"));
}

#[test]
fn a_browser_shows_all_of_it() {
    let Some(chromium) = browser::find() else {
        eprintln!("skipped: no chromium and chromedriver in PATH (DBP_CHROMIUM is not set)");
        return;
    };
    let (folder, made_up, _) = page();
    let of_runs = page_of_runs(folder.path());
    let browser = Browser::start(&chromium);
    for page in [&of_runs, &made_up] {
        let name = page.file_name().unwrap().to_str().unwrap();
        let mut looks = Vec::new();
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (700, "light"), (375, "light"), (320, "dark")] {
            browser.width(width);
            browser.scheme(scheme);
            browser.open(page);
            let seen = browser.run(MEASURE);
            let at = format!("{name} at {width} px, {scheme}: {seen}");
            assert_eq!((&seen["scroll"], &seen["wide"]), (&json!(0), &json!([])), "something leaves {at}");
            assert_eq!((&seen["empty"], &seen["flat"], &seen["unloaded"]), (&json!(0), &json!(0), &json!(0)), "{at}");
            // Each figure has one drawing to be seen: one view of the curves, one of the two forms of a dot chart.
            assert_eq!(seen["drawings"].as_u64(), seen["drawable"].as_u64(), "{at}");
            assert!(seen["drawings"].as_u64() >= Some(5), "{at}");
            looks.push(["ink", "page", "line", "level"].map(|key| seen[key].clone()));
        }
        let changed = looks[0].iter().zip(&looks[1]).all(|(light, dark)| light != dark);
        assert!(changed, "dark mode changes every color of {name}: {looks:?}");
        assert_eq!(browser.console(), Vec::<Value>::new());
        let requests = browser.requests();
        let own = |url: &&String| url.starts_with("file://") && url.ends_with(&format!("/{name}"));
        assert_eq!(requests.iter().filter(own).count(), 5, "the log of requests works: {requests:?}");
        assert_eq!(requests.iter().find(|url| !own(url) && !url.starts_with("data:")), None);
    }
    let title = browser.run("return document.title;");
    assert!(title.as_str().unwrap().starts_with("Made up </title><script>"), "{title}");

    curves_switch_and_tell_values(&browser);
    a_name_in_the_legend_brings_out_its_curve(&browser);
    paper_is_white(&browser);
    the_policy_holds(&browser);
}

fn curves_switch_and_tell_values(browser: &Browser) {
    browser.width(1280);
    let words = "return Array.from(document.querySelectorAll('.lines .view'))
        .filter((v) => v.getClientRects().length > 0).map((v) => v.querySelector('text.words:last-of-type, text.words').textContent
        + '|' + v.querySelector('svg.chart').dataset.xname);";
    assert_eq!(browser.run(words), json!(["validation loss|step"]));
    browser.run("document.querySelector('.switch label:nth-of-type(2)').click();");
    assert_eq!(browser.run(words), json!(["validation loss|training time (h)"]));

    // The read-out at the curves' right end has each arm's own last value: bp ends at 500 steps, 0.5 h; the others later.
    let tell = "
        const chart = Array.from(document.querySelectorAll('.lines svg.chart')).find((c) => c.getClientRects().length > 0);
        const path = chart.querySelector('path.line.a0').getBoundingClientRect();
        const at = { clientX: path.right, clientY: path.top + 20, bubbles: true };
        chart.dispatchEvent(new PointerEvent('pointermove', at));
        const box = document.querySelector('.readout');
        const lines = Array.from(box.children, (line) => line.textContent);
        chart.dispatchEvent(new PointerEvent('pointerleave', at));
        return { lines, gone: document.querySelector('.readout') === null && document.querySelector('.hair') === null };";
    let told = browser.run(tell);
    assert_eq!(told["lines"][0], "training time (h) 0.5", "{told}");
    assert_eq!(told["lines"][1], "0.6220 bp", "{told}"); // 0.6 + 0.4 / 20 + 0.001 · (20 mod 3)
    assert_eq!((told["lines"].as_array().unwrap().len(), &told["gone"]), (4, &json!(true)), "{told}");
}

fn a_name_in_the_legend_brings_out_its_curve(browser: &Browser) {
    let point = "
        const view = Array.from(document.querySelectorAll('.lines .view')).find((v) => v.getClientRects().length > 0);
        const name = view.querySelector('.legend li:nth-child(2)');
        const clear = () => Array.from(view.querySelectorAll('path.line:not(.dim)'), (p) => p.dataset.name)
            .filter((n) => n !== undefined);
        name.dispatchEvent(new PointerEvent('pointerenter'));
        const one = clear();
        name.dispatchEvent(new PointerEvent('pointerleave'));
        return [one, clear().length];";
    assert_eq!(browser.run(point), json!([["paper"], 3]));
}

fn paper_is_white(browser: &Browser) {
    let features = json!([{ "name": "prefers-color-scheme", "value": "dark" }]);
    browser.devtools("Emulation.setEmulatedMedia", &json!({ "media": "print", "features": features }));
    let seen = browser.run(
        "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('.switch')).display,
            getComputedStyle(document.querySelector('nav')).display];",
    );
    assert_eq!(seen, json!(["rgb(255, 255, 255)", "none", "none"]));
    let printed = browser.devtools("Page.printToPDF", &json!({ "printBackground": true }));
    assert!(printed["data"].as_str().unwrap().len() > 10_000);
}

/// A page that wanted to could not reach a server: pictures, scripts and calls are refused before they leave.
fn the_policy_holds(browser: &Browser) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let port = server.local_addr().unwrap().port();
    let refused = browser.run_async(&format!(
        "const refused = [];
        addEventListener('securitypolicyviolation', (e) => refused.push(e.effectiveDirective));
        const place = 'http://127.0.0.1:{port}/';
        document.body.append(Object.assign(new Image(), {{ src: place }}));
        document.body.append(Object.assign(document.createElement('script'), {{ src: place }}));
        fetch(place).catch(() => 0).then(() => {{
            const wait = () => (refused.length >= 3 ? done(refused.sort()) : setTimeout(wait, 20));
            wait();
        }});"
    ));
    assert_eq!(refused, json!(["connect-src", "img-src", "script-src-elem"]));
    assert!(server.accept().is_err(), "something reached the server");
}
