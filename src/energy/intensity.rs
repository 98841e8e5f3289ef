//! Carbon intensity of electricity: what a kWh emits in a country or a part of it, and where each figure comes from.
//!
//! The tables are `datasets/carbon_intensity.csv` and `datasets/carbon_regions.csv`, made by `tools/carbon_tables.py`
//! from what codecarbon 3.3.2 ships; sources and licenses stand on top of each. They are yearly averages of generation.
//! Departures from codecarbon: names are looked up as people write them, an unknown place is an error and not the world
//! average, and each figure says where it comes from.

use std::collections::HashMap;
use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use strsim::damerau_levenshtein;

use super::units::GramsPerKwh;

const COUNTRIES: &str = include_str!("../../datasets/carbon_intensity.csv");
const REGIONS: &str = include_str!("../../datasets/carbon_regions.csv");

/// A figure and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Intensity {
    pub grams: GramsPerKwh,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The user said so.
    Given,
    /// The yearly average of a region or country.
    Table { place: Place, year: u16, source: &'static str },
    /// Electricity Maps, now.
    Live {
        zone: String,
        /// The time that the figure is for, RFC 3339.
        at: String,
        /// The service computed it for want of measurements.
        estimated: bool,
    },
    /// Where nothing else is known.
    World,
}

/// A row of the countries' table.
#[derive(Debug, PartialEq)]
pub struct Country {
    pub iso2: &'static str,
    pub iso3: &'static str,
    pub name: &'static str,
    others: &'static str,
    grams: f64,
    year: u16,
}

/// A row of the regions' table: a state, a province, or a bidding zone of the market.
#[derive(Debug, PartialEq)]
pub struct Region {
    /// Postal code, or ISO 3166-2 without the country: `CA`, `ON`, `SE3`, `BJ`.
    pub code: &'static str,
    pub name: &'static str,
    iso3: &'static str,
    others: &'static str,
    zone: &'static str,
    grams: f64,
    year: u16,
    source: &'static str,
}

/// A country of the table, perhaps a region of it. It comes from [`place`] alone, so it has a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub country: &'static Country,
    pub region: Option<&'static Region>,
    /// Electricity Maps' zone for this place. `None` where the region is none of its zones.
    pub zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntensityError {
    #[error("country: expected an ISO 3166 code or an English name, got `{given}`{}", did_you_mean(.near))]
    UnknownCountry { given: String, near: Vec<&'static str> },
    #[error("region: expected a region of {country}, got `{given}`{}", did_you_mean(.near))]
    UnknownRegion { given: String, country: &'static str, near: Vec<&'static str> },
    #[error(
        "region: {country} has none in the table, got `{given}`; regions have {}; elsewhere a zone of Electricity Maps can \
         stand here, such as AU-NSW",
        .with.join(", ")
    )]
    NoRegions { given: String, country: &'static str, with: Vec<&'static str> },
}

fn did_you_mean(near: &[&str]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

/// The country that a code or an English name means, and the region of it, likewise by code or name. Case, accents,
/// blanks and punctuation do not count; a blank region is none. A region in the form of Electricity Maps' zones of that
/// country (`US-CAL-CISO`) that the table does not have is kept for the live service.
///
/// Errors: an unknown country or region (with the three nearest names), a region where the table has none.
pub fn place(country: &str, region: Option<&str>) -> Result<Place, IntensityError> {
    let tables = tables();
    let Some(&found) = tables.countries_by_key.get(&key(country)) else {
        let named = tables.countries.iter().map(|row| (row.name, row.others));
        return Err(IntensityError::UnknownCountry { given: country.trim().into(), near: nearest(country, named) });
    };
    let Some(given) = region.map(str::trim).filter(|given| !given.is_empty()) else {
        return Ok(Place { country: found, region: None, zone: Some(found.iso2.into()) });
    };
    if let Some(&region) = tables.regions_by_key.get(&(found.iso3, key(given))) {
        let zone = Some(region.zone).filter(|zone| !zone.is_empty()).map(str::to_owned);
        return Ok(Place { country: found, region: Some(region), zone });
    }
    let regions: Vec<_> = tables.regions.iter().filter(|row| row.iso3 == found.iso3).collect();
    if let Some(zone) = zone_name(given)
        && let Some(parts) = zone.strip_prefix(found.iso2).and_then(|rest| rest.strip_prefix('-'))
        // Where the table has regions, `US-XX` is more likely a slip than a zone.
        && (regions.is_empty() || parts.contains('-'))
    {
        return Ok(Place { country: found, region: None, zone: Some(zone) });
    }
    let (given, country) = (given.to_owned(), found.name);
    if regions.is_empty() {
        let has = |row: &&Country| tables.regions.iter().any(|region| region.iso3 == row.iso3);
        let with = tables.countries.iter().filter(has).map(|row| row.name).collect();
        return Err(IntensityError::NoRegions { given, country, with });
    }
    let near = nearest(&given, regions.iter().map(|row| (row.name, row.others)));
    Err(IntensityError::UnknownRegion { given, country, near })
}

/// The region's figure if there is one, else the country's.
pub fn of(place: &Place) -> Intensity {
    let (grams, year, source) = match place.region {
        Some(region) => (region.grams, region.year, region.source),
        None => (place.country.grams, place.country.year, "Our World in Data / Ember"),
    };
    Intensity { grams: GramsPerKwh(grams), origin: Origin::Table { place: place.clone(), year, source } }
}

/// The world's average of 2018: IEA, Global Energy & CO2 Status Report 2019, as codecarbon uses it.
pub fn world() -> Intensity {
    Intensity { grams: GramsPerKwh(475.0), origin: Origin::World }
}

impl Origin {
    /// For people: `Netherlands, 2023 (Our World in Data / Ember)`.
    pub fn describe(&self) -> String {
        match self {
            Self::Given => "given".into(),
            Self::Table { place, year, source } => format!("{}, {year} ({source})", place.name()),
            Self::Live { zone, at, estimated } => {
                let at = DateTime::parse_from_rfc3339(at)
                    .map_or_else(|_| at.clone(), |at| at.with_timezone(&Utc).format("%Y-%m-%dT%H:%MZ").to_string());
                format!("Electricity Maps, zone {zone}, {at}{}", if *estimated { ", estimated" } else { "" })
            }
            Self::World => "world average, 2018 (IEA)".into(),
        }
    }
}

impl Place {
    /// `California, United States`, or the country alone.
    pub fn name(&self) -> String {
        match self.region {
            Some(region) if region.name != self.country.name => format!("{}, {}", region.name, self.country.name),
            _ => self.country.name.into(),
        }
    }
}

/// A zone as Electricity Maps writes it (`NL`, `US-CAL-CISO`), if `text` has that form. Such a name is safe in an
/// address and as a part of a file's name.
pub(super) fn zone_name(text: &str) -> Option<String> {
    let zone = text.trim().to_ascii_uppercase();
    let mut parts = zone.split('-');
    let country = parts.next()?;
    let whole = country.len() == 2
        && country.bytes().all(|c| c.is_ascii_uppercase())
        && parts.all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric()));
    (whole && zone.len() <= 16).then_some(zone)
}

struct Tables {
    countries: &'static [Country],
    regions: &'static [Region],
    countries_by_key: HashMap<String, &'static Country>,
    /// By ISO-3 code of the country and the region's key.
    regions_by_key: HashMap<(&'static str, String), &'static Region>,
}

fn tables() -> &'static Tables {
    static COUNTRY_ROWS: OnceLock<Vec<Country>> = OnceLock::new();
    static REGION_ROWS: OnceLock<Vec<Region>> = OnceLock::new();
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        // A row that does not parse is left out; the tests hold that there is none.
        let countries = COUNTRY_ROWS.get_or_init(|| rows(COUNTRIES).filter_map(|row| country(&row)).collect());
        let regions = REGION_ROWS.get_or_init(|| rows(REGIONS).filter_map(|row| region(&row)).collect());
        let mut countries_by_key = HashMap::new();
        for row in countries {
            for name in [row.iso2, row.iso3, row.name].into_iter().chain(row.others.split('|')) {
                countries_by_key.insert(key(name), row);
            }
        }
        countries_by_key.remove(""); // Of rows without other names.
        let mut regions_by_key = HashMap::new();
        for row in regions {
            let iso2 = countries.iter().find(|country| country.iso3 == row.iso3).map_or("", |country| country.iso2);
            let coded = format!("{iso2}-{}", row.code); // `US-CA`, `SE-SE3`.
            for name in [row.code, row.name, &coded].into_iter().chain(row.others.split('|')) {
                regions_by_key.insert((row.iso3, key(name)), row);
            }
        }
        Tables { countries, regions, countries_by_key, regions_by_key }
    })
}

fn country(row: &[&'static str]) -> Option<Country> {
    let &[iso2, iso3, name, others, grams, year] = row else { return None };
    Some(Country { iso2, iso3, name, others, grams: grams.parse().ok()?, year: year.parse().ok()? })
}

fn region(row: &[&'static str]) -> Option<Region> {
    let &[iso3, code, name, others, zone, grams, year, source] = row else { return None };
    Some(Region { code, name, iso3, others, zone, grams: grams.parse().ok()?, year: year.parse().ok()?, source })
}

/// The rows' fields, without comments.
fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| line.split(',').collect())
}

/// What is left of a name when case, accents, blanks and punctuation do not count.
fn key(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    for letter in name.replace('&', " and ").chars().flat_map(char::to_lowercase) {
        match unaccented(letter) {
            Some(letters) => plain.push_str(letters),
            None if letter.is_alphanumeric() => plain.push(letter),
            None if is_combining(letter) || matches!(letter, '\'' | '’' | '.') => {}
            None => plain.push(' '),
        }
    }
    let mut words: Vec<&str> = plain.split_whitespace().collect();
    if words.len() > 1 && words[0] == "the" {
        words.remove(0);
    }
    words.concat()
}

/// Accents that stand as characters of their own behind the letter.
fn is_combining(letter: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&letter)
}

/// The plain letters of an accented small one.
fn unaccented(letter: char) -> Option<&'static str> {
    Some(match letter {
        'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è'..='ë' | 'ē' | 'ė' | 'ę' | 'ě' => "e",
        'ğ' | 'ģ' => "g",
        'ì'..='ï' | 'ī' | 'į' | 'ı' => "i",
        'ķ' => "k",
        'ł' | 'ľ' | 'ļ' => "l",
        'ñ' | 'ń' | 'ň' | 'ņ' => "n",
        'ò'..='ö' | 'ø' | 'ō' | 'ő' => "o",
        'ŕ' | 'ř' => "r",
        'ś' | 'š' | 'ş' | 'ș' => "s",
        'ť' | 'ţ' | 'ț' => "t",
        'ù'..='ü' | 'ū' | 'ů' | 'ű' | 'ų' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        'æ' => "ae",
        'œ' => "oe",
        'ß' => "ss",
        _ => return None,
    })
}

/// The three names nearest to what was given: first those that it begins, then by edits, over all names of a row.
fn nearest(given: &str, rows: impl Iterator<Item = (&'static str, &'static str)>) -> Vec<&'static str> {
    let given = key(given);
    if given.is_empty() {
        return Vec::new();
    }
    let edits = |name: &str| damerau_levenshtein(&given, &key(name));
    let begins = |name: &str| key(name).starts_with(&given);
    let mut ranked: Vec<_> = rows
        .map(|(name, others)| {
            let others = || others.split('|').filter(|other| !other.is_empty());
            let rank = if begins(name) { 0 } else { 2 - usize::from(others().any(begins)) };
            (rank, others().map(edits).fold(edits(name), usize::min), name)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(3).map(|(_, _, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(row: &'static str) -> impl Iterator<Item = &'static str> {
        row.split('|').filter(|name| !name.is_empty())
    }

    #[test]
    fn the_tables_have_their_shape() {
        for (table, columns) in [(COUNTRIES, 6), (REGIONS, 8)] {
            for row in rows(table) {
                assert_eq!(row.len(), columns, "{row:?}");
                assert!(row.iter().all(|field| !field.contains('"') && *field == field.trim()), "{row:?}");
                let grams = row[columns - if columns == 6 { 2 } else { 3 }];
                assert!(grams.split_once('.').is_none_or(|(_, decimals)| decimals.len() <= 3), "{row:?}");
            }
        }
        let tables = tables();
        assert_eq!((tables.countries.len(), rows(COUNTRIES).count()), (213, 213));
        assert_eq!((tables.regions.len(), rows(REGIONS).count()), (104, 104));
        for row in tables.countries {
            assert!((0.0..1500.0).contains(&row.grams) && (2009..=2026).contains(&row.year), "{row:?}");
            assert!(row.iso2.len() == 2 && row.iso3.len() == 3, "{row:?}");
        }
        for row in tables.regions {
            assert!((3.0..1000.0).contains(&row.grams) && (2023..=2026).contains(&row.year), "{row:?}");
            assert!(row.zone.is_empty() || zone_name(row.zone).as_deref() == Some(row.zone), "{row:?}");
            // The header explains every source.
            assert!(REGIONS.contains(&format!("# {}: ", row.source)), "{row:?}");
        }
    }

    #[test]
    fn every_country_is_found_by_codes_and_names_and_is_itself() {
        for row in tables().countries {
            for name in [row.iso2, row.iso3, row.name].into_iter().chain(names(row.others)) {
                for written in [name.to_owned(), name.to_lowercase(), format!("  {}. ", name.to_uppercase())] {
                    let found = place(&written, None).unwrap();
                    assert_eq!((found.country.iso3, found.region), (row.iso3, None), "{written}");
                    assert_eq!(found.zone.as_deref(), Some(row.iso2));
                    assert_eq!(of(&found).grams.0, row.grams);
                }
            }
        }
        for (written, iso3) in [
            ("UK", "GBR"),
            ("south korea", "KOR"),
            ("russia", "RUS"),
            ("Czech Republic", "CZE"),
            ("Ivory Coast", "CIV"),
            ("côte d’ivoire", "CIV"),
            ("Co\u{302}te dIvoire", "CIV"),
            ("The Netherlands", "NLD"),
            ("TÜRKİYE", "TUR"),
            ("réunion", "REU"),
            ("U.S.A.", "USA"),
            ("Trinidad & Tobago", "TTO"),
            ("St. Lucia", "LCA"),
            ("Guinea", "GIN"),
            ("guinea bissau", "GNB"),
        ] {
            assert_eq!(place(written, None).unwrap().country.iso3, iso3, "{written}");
        }
    }

    #[test]
    fn every_region_is_found_by_code_and_names_and_is_itself() {
        for row in tables().regions {
            for name in [row.code, row.name].into_iter().chain(names(row.others)) {
                let found = place(row.iso3, Some(&name.to_lowercase())).unwrap();
                assert_eq!(found.region, Some(row), "{name}");
                assert_eq!(of(&found).grams.0, row.grams);
                assert_eq!(found.zone.unwrap_or_default(), row.zone);
            }
        }
        let region = |country, region| place(country, Some(region)).unwrap().region.map(|region| region.code);
        assert_eq!(region("Canada", "québec"), Some("QC"));
        assert_eq!(region("SE", "SE-SE3"), Some("SE3"));
        assert_eq!(region("CN", "CN-BJ"), Some("BJ"));
        assert_eq!(region("us", "us-ca"), Some("CA"));
        assert_eq!(region("Norway", "tromso"), Some("NO4"));
        assert_eq!(place("Canada", Some("  ")).unwrap(), place("CAN", None).unwrap(), "a blank region is none");
    }

    #[test]
    fn figures_say_where_they_come_from() {
        let origin = |country, region| of(&place(country, region).unwrap()).origin.describe();
        assert_eq!(origin("NL", None), "Netherlands, 2023 (Our World in Data / Ember)");
        assert_eq!(origin("US", Some("CA")), "California, United States, 2023 (EPA eGRID2023)");
        assert_eq!(origin("Finland", Some("FI")), "Finland, 2025 (codecarbon)");
        assert_eq!(world().origin.describe(), "world average, 2018 (IEA)");
        assert_eq!(Origin::Given.describe(), "given");
        let live = |at: &str, estimated| Origin::Live { zone: "NL".into(), at: at.into(), estimated }.describe();
        assert_eq!(live("2026-11-23T04:00:00.000Z", true), "Electricity Maps, zone NL, 2026-11-23T04:00Z, estimated");
        assert_eq!(live("2026-11-23T05:00:00+01:00", false), "Electricity Maps, zone NL, 2026-11-23T04:00Z");
    }

    #[test]
    fn figures_are_the_sources() {
        let grams = |country, region| of(&place(country, region).unwrap()).grams.0;
        assert_eq!(grams("CAF", None), 0.0, "a figure, not a gap");
        assert_eq!(grams("NLD", None), 267.622);
        // eGRID2023: 394.769 lb/MWh. Ontario: 8.6 % gas and 0.1 % petroleum of 100.1.
        assert!((grams("USA", Some("CA")) - 394.769 * 0.453_592_37).abs() < 1e-3);
        assert!((grams("CAN", Some("ON")) - (8.6 * 743.841_591_6 + 0.1 * 816.688_526_3) / 100.1).abs() < 1e-3);
        assert_eq!((grams("SWE", Some("SE3")), grams("CHN", Some("Beijing"))), (27.0, 555.4));
    }

    #[test]
    fn a_zone_of_the_service_is_kept_and_the_countrys_figure_used() {
        for (country, zone) in [("USA", "us-cal-ciso"), ("Australia", "AU-NSW"), ("Brazil", "BR-S"), ("CA", "CA-NL-NF")]
        {
            let found = place(country, Some(zone)).unwrap();
            assert_eq!((found.region, found.zone.as_deref()), (None, Some(zone.to_uppercase().as_str())));
            assert_eq!(of(&found).grams, of(&place(country, None).unwrap()).grams);
        }
        assert_eq!(place("CA", Some("on")).unwrap().zone.as_deref(), Some("CA-ON"));
        assert_eq!(place("US", Some("CA")).unwrap().zone, None, "no zone is California");
        for wrong in ["US-XX", "AU-NSW", "US--", "US-CAL/../x-y", "US-CAL-CISO-AND-MANY-MORE"] {
            assert!(matches!(place("USA", Some(wrong)), Err(IntensityError::UnknownRegion { .. })), "{wrong}");
        }
    }

    #[test]
    fn errors_name_what_is_near() {
        let error = |country, region| place(country, region).unwrap_err().to_string();
        let expected = "country: expected an ISO 3166 code or an English name, got";
        assert_eq!(
            error("Nehterlands", None),
            format!("{expected} `Nehterlands`; did you mean Netherlands, New Zealand, Switzerland?")
        );
        assert_eq!(error("", None), format!("{expected} ``"));
        assert!(error("nether", None).contains("did you mean Netherlands, "), "{}", error("nether", None));
        assert!(
            error("united", None).ends_with("mean United Arab Emirates, United Kingdom, United States?"),
            "{}",
            error("united", None)
        );
        assert_eq!(
            error("USA", Some("Californa")),
            "region: expected a region of United States, got `Californa`; did you mean California, Arizona, Alabama?"
        );
        assert_eq!(
            error("Netherlands", Some("Utrecht")),
            "region: Netherlands has none in the table, got `Utrecht`; regions have Canada, China, Finland, Norway, Sweden, \
             United States; elsewhere a zone of Electricity Maps can stand here, such as AU-NSW"
        );
    }
}
