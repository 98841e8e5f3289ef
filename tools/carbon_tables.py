#!/usr/bin/env python3
"""Writes the tables of energy estimates: carbon intensities of countries and regions, and thermal design powers.

    python tools/carbon_tables.py        writes carbon_intensity.csv, carbon_regions.csv and cpu_tdp.csv under datasets/

Needs `codecarbon` 3.3.2 and `pycountry` (pip install codecarbon==3.3.2 pycountry). The figures are the ones that
codecarbon ships, so that estimates compare with its estimates; where they come from stands on top of each table.
Names are ISO's (pycountry) and common usage (the lists below). The tables need no quotes: a field holds no comma.
"""

import csv
import importlib.metadata
import json
import re
import sys
from pathlib import Path

import pycountry

VERSION = "3.3.2"
DATASETS = Path(__file__).resolve().parent.parent / "datasets"

COUNTRY_NOTES = """\
Carbon intensity of electricity by country, in g CO2-equivalent per kWh generated, of the year stated.
Figures: Our World in Data, "Carbon intensity of electricity generation", based on Ember and on the Energy Institute's
Statistical Review of World Energy; CC BY 4.0 (https://ourworldindata.org/grapher/carbon-intensity-electricity).
The selection is the one that codecarbon 3.3.2 ships (MIT), so that figures compare. 0 is a figure, not a gap.
Names: ISO 3166-1 and common usage, alternatives separated by |. Made by tools/carbon_tables.py."""

REGION_NOTES = """\
Carbon intensity of electricity by region of a country, in g per kWh, of the year stated. `zone`: Electricity Maps' zone
where one coincides with the region. The selection is the one that codecarbon 3.3.2 ships (MIT). Sources:
EPA eGRID2023: United States Environmental Protection Agency, Emissions & Generation Resource Integrated Database
  (eGRID2023), state annual CO2-equivalent total output emission rate (STC2ERTA), 2023, lb/MWh times 0.45359237;
  a work of the US government, public domain (https://www.epa.gov/egrid).
codecarbon mix of 2023: the provinces' mix of generation of 2023 in codecarbon, which names no publisher, times its
  factors for coal 995.725971, petroleum 816.6885263, natural gas 743.8415916 g/kWh; all else counts as 0.
ENTSO-E 2025: ENTSO-E Transparency Platform, Actual Generation per Production Type, bidding zones, 2025, times
  codecarbon's lifecycle factors; derived by Khepri 1.3 (https://doi.org/10.5281/zenodo.22285397). Generation of types
  without a factor counts as 0: SE4 (15 % of it) is a lower bound. Licence of the data: the platform's terms.
codecarbon: codecarbon's figure, which names no publisher.
MEE China 2025-47: Ministry of Ecology and Environment and National Bureau of Statistics of China, Announcement 2025
  No. 47, electricity CO2 emission factors of 2023, table 3 (published 2025-12-31); CO2 only, imports included. No
  licence stated.
Names: alternatives separated by |. Made by tools/carbon_tables.py."""

TDP_NOTES = """\
Thermal design power of processors, in watts, as AMD and Intel publish it in their specifications.
Collected by codecarbon 3.3.2 (data/hardware/cpu_power.csv; MIT, Copyright (c) 2019 Mila, BCG Gamma, CometML, Haverford
College, (c) 2023 Code Carbon NGO). Names are shortened to what /proc/cpuinfo shows; rows that name neither maker or no
model are left out. A name with several figures is ambiguous.
Made by tools/carbon_tables.py."""

# Common usage beside ISO's names; a bare adjective or a name that two countries share is left out.
COMMON = {
    "ARE": ["UAE", "Emirates"],
    "BIH": ["Bosnia", "Bosnia-Herzegovina"],
    "BOL": ["Bolivia"],
    "BRN": ["Brunei Darussalam"],
    "CAF": ["CAR"],
    "CHN": ["Mainland China", "PRC"],
    "CIV": ["Ivory Coast"],
    "COD": ["DR Congo", "DRC", "Congo-Kinshasa", "Democratic Republic of the Congo", "Congo (Kinshasa)"],
    "COG": ["Congo-Brazzaville", "Republic of the Congo", "Congo Republic", "Congo (Brazzaville)"],
    "CPV": ["Cabo Verde"],
    "CZE": ["Czech Republic"],
    "DEU": ["Deutschland"],
    "DOM": ["Dominican Rep."],
    "ESP": ["Espana"],
    "FLK": ["Malvinas"],
    "GBR": ["UK", "Great Britain", "Britain", "United Kingdom of Great Britain"],
    "GMB": ["The Gambia"],
    "HKG": ["Hong Kong SAR"],
    "KOR": ["South Korea", "Republic of Korea", "Korea"],
    "MAC": ["Macau"],
    "MKD": ["Macedonia"],
    "MMR": ["Burma"],
    "NLD": ["Holland", "Nederland"],
    "PRK": ["North Korea", "DPRK"],
    "PSE": ["Palestinian Territories"],
    "RUS": ["Russia"],
    "SHN": ["St Helena"],
    "SWZ": ["Swaziland"],
    "SYR": ["Syria"],
    "TLS": ["Timor-Leste", "Timor Leste"],
    "TUR": ["Türkiye", "Turkiye"],
    "TWN": ["Chinese Taipei"],
    "TZA": ["Tanzania"],
    "USA": ["United States of America", "America"],
    "VEN": ["Venezuela"],
    "VIR": ["US Virgin Islands"],
    "VNM": ["Viet Nam"],
}

PROVINCES = {
    "alberta": "AB", "british columbia": "BC", "manitoba": "MB", "new brunswick": "NB",
    "newfoundland and labrador": "NL", "northwest territories": "NT", "nova scotia": "NS", "nunavut": "NU",
    "ontario": "ON", "prince edward island": "PE", "quebec": "QC", "saskatchewan": "SK", "yukon": "YT",
}  # fmt: skip
PROVINCE_NAMES = {"NL": ["Newfoundland"], "PE": ["PEI"], "QC": ["Québec"], "YT": ["Yukon Territory"], "NT": ["NWT"]}
CANADA_FACTORS = {"coal": 995.725971, "petroleum": 816.6885263, "naturalGas": 743.8415916}
LB_PER_MWH = 0.45359237  # In g/kWh.

# Bidding zones by the town that names them, and where they lie.
BIDDING_ZONES = {
    "SE1": ("Luleå", "Northern Sweden"), "SE2": ("Sundsvall", "North-central Sweden"),
    "SE3": ("Stockholm", "South-central Sweden"), "SE4": ("Malmö", "Southern Sweden"),
    "NO1": ("Oslo", "Eastern Norway"), "NO2": ("Kristiansand", "Southern Norway"),
    "NO3": ("Trondheim", "Central Norway"), "NO4": ("Tromsø", "Northern Norway"),
    "NO5": ("Bergen", "Western Norway"), "FI": ("Finland", ""),
}  # fmt: skip


def load(folder, name):
    return json.loads((folder / "data" / "private_infra" / name).read_text(encoding="utf-8"))


def number(value):
    """At most 3 decimals, without trailing zeros."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def plain(name):
    """A name without a comma: `Bolivia, Plurinational State of` is said the other way around."""
    name, _, rest = name.partition(",")
    return f"{rest.strip()} {name.strip()}".replace(",", "").strip() if rest else name.strip()


def joined(names, *not_these):
    """Alternatives, each once, without those that the row has already."""
    seen = {name.casefold() for name in not_these}
    kept = []
    for name in names:
        if name and name.casefold() not in seen:
            seen.add(name.casefold())
            kept.append(name)
    return "|".join(kept)


def write(name, notes, columns, rows):
    lines = [f"# {line}" for line in notes.splitlines()] + [f"# {columns}"]
    for row in rows:
        assert len(row) == columns.count(",") + 1, row
        for field in row:
            assert not re.search(r'[,"\n]', field) and field == field.strip(), (name, row)
        lines.append(",".join(row))
    (DATASETS / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{name}: {len(rows)} rows")


def countries(folder):
    rows = []
    for iso3, figures in load(folder, "global_energy_mix.json").items():
        iso, name = pycountry.countries.get(alpha_3=iso3), plain(figures["country_name"])
        names = [plain(iso.name), plain(getattr(iso, "common_name", "")), plain(getattr(iso, "official_name", ""))]
        names += COMMON.get(iso3, [])
        names += [re.sub(r"^Saint ", "St ", each) for each in [name, *names]]
        names += [each.removeprefix("the ") for each in names if each.startswith("the ")]
        others = joined(names, name, iso.alpha_2, iso3)
        rows.append([iso.alpha_2, iso3, name, others, number(figures["carbon_intensity"]), str(figures["year"])])
    return sorted(rows, key=lambda row: row[1])


def regions(folder):
    rows = []
    for name, figures in load(folder, "2023/usa_emissions.json").items():
        code = figures.get("regionCode", "")
        if len(code) != 2:  # The whole country, and what the file says about itself.
            continue
        iso_name = pycountry.subdivisions.get(code=f"US-{code}").name
        assert iso_name.casefold() == name, (name, iso_name)
        others = "Washington DC|Washington D.C." if code == "DC" else ""
        grams = number(figures["emissions"] * LB_PER_MWH)
        rows.append(["USA", code, iso_name, others, "", grams, "2023", "EPA eGRID2023"])
    for name, mix in load(folder, "2023/canada_energy_mix.json").items():
        code = PROVINCES[name]
        grams = sum(mix[fuel] * factor for fuel, factor in CANADA_FACTORS.items()) / mix["total"]
        words = [word if word == "and" else word.capitalize() for word in name.split()]
        # Newfoundland and Labrador are two zones there.
        zone = "" if code == "NL" else f"CA-{code}"
        others = joined(PROVINCE_NAMES.get(code, []), code)
        rows.append(["CAN", code, " ".join(words), others, zone, number(grams), "2023", "codecarbon mix of 2023"])
    for code, figures in load(folder, "nordic_emissions.json")["data"].items():
        town, place = BIDDING_ZONES[code]
        iso3 = {"SE": "SWE", "NO": "NOR", "FI": "FIN"}[code[:2]]
        zone = code if code == "FI" else f"{code[:2]}-{code}"
        source = "codecarbon" if code == "FI" else "ENTSO-E 2025"
        rows.append([iso3, code, town, place, zone, number(figures["emission_factor"]), str(figures["year"]), source])
    for code, figures in load(folder, "2023/china_provincial_emissions.json")["data"].items():
        iso_name = re.sub(r" \(.*\)$", "", pycountry.subdivisions.get(code=code).name)
        names = [name.title() for name in figures["names"]] + [iso_name]
        others = joined(names, figures["description"])
        grams = number(figures["emission_factor"])
        row = ["CHN", code[3:], figures["description"], others, "", grams, str(figures["year"]), "MEE China 2025-47"]
        rows.append(row)
    return sorted(rows, key=lambda row: row[:2])


# Words of a row that /proc/cpuinfo never or not always shows, and that tell no two processors apart.
NOISE = re.compile(
    r"\([^)]*\)|\b(with|includes)\b.*$|\b(processor|cpu|apu|soc|microcontroller|\d+(st|nd|rd|th) gen|x-series)\b"
    r"|\bmobile$|\b((microsoft )?surface|extreme|black|anniversary) edition\b|[®™\u200b]",
    re.IGNORECASE,
)
TIER = re.compile(r"(i[3579]|m[357]|x[2346]|v\d|\d|core|duo|quad)", re.IGNORECASE)


def is_model(word):
    """A number of a model: neither the tier that many share (`i7`, `X4`, `2`) nor a clock (`2.40`)."""
    return bool(re.search(r"\d", word)) and not TIER.fullmatch(word) and not re.fullmatch(r"\d\.\d+[A-Z]?", word)


def tdps(folder):
    rows = set()
    with open(folder / "data" / "hardware" / "cpu_power.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = NOISE.sub(" ", row["Name"].replace("\u00a0", " "))
            name = re.sub(r"(?<=i\d)\+(?=\d)", "-", name)  # `Core i5+8400`: sold with a memory module.
            name = " ".join(name.split())
            words = re.split(r"[ -]", name)
            if not {"AMD", "Intel"} & set(words) or re.search("[,/]", name):
                continue
            if not re.fullmatch(r"\d+(\.\d+)?", row["TDP"]) or float(row["TDP"]) == 0:  # `27.29.5`, and one of 0.
                continue
            # `Athlon 64` is a family; what follows names the model.
            rest = [word for word in words if word != "64" or "Athlon" not in words and "Turion" not in words]
            if any(is_model(word) for word in rest) and not any(re.fullmatch(r"\d\.\d+[A-Z]?", word) for word in words):
                rows.add((name, number(float(row["TDP"]))))
    # Reversed, so that of two spellings (`i5-750S`, `i5-750s`) the one with capitals is kept, whatever a set's order.
    unique = {(name.casefold(), float(watts)): [name, watts] for name, watts in sorted(rows, reverse=True)}
    return [unique[key] for key in sorted(unique)]


def main():
    found = importlib.metadata.version("codecarbon")
    if found != VERSION:
        sys.exit(f"error: codecarbon: expected {VERSION}, got {found}: pip install codecarbon=={VERSION}")
    # Its folder is found without importing it: the package logs and measures on import.
    folder = Path(importlib.metadata.distribution("codecarbon").locate_file("codecarbon"))
    write("carbon_intensity.csv", COUNTRY_NOTES, "iso2,iso3,name,other_names,g_per_kwh,year", countries(folder))
    columns = "iso3,region,name,other_names,zone,g_per_kwh,year,source"
    write("carbon_regions.csv", REGION_NOTES, columns, regions(folder))
    write("cpu_tdp.csv", TDP_NOTES, "name,watts", tdps(folder))


if __name__ == "__main__":
    main()
