"""The page of similar patients."""

TEXTS = {
    "similar.title": "Similar patients",
    "similar.what": (
        "The patients of this house whose inputs of the model “{model}” were nearest to this patient’s, counted. "
        "Nobody of them is shown alone, and no count below {fewest}."
    ),
    "similar.nothing": "Nothing was estimated for this patient so far, so there are no inputs to compare.",
    "similar.silent": "No kind of data could speak for this patient, so there is nothing to compare.",
    "similar.left": (
        "{left} estimates have not been read yet: the counts are of those that were. Load the page again in a moment."
    ),
    "similar.few": "Fewer than {fewest} patients can be compared with this one. Nothing is shown of so few.",
    "similar.few_filtered": (
        "Fewer than {fewest} patients can be compared with this one under these filters. Nothing is shown of so few."
    ),
    "similar.filter": "Who is compared",
    "similar.many": "How many of the nearest",
    "similar.same_subtype": "Only the same subtype: {subtype}",
    "similar.same_stage": "Only the same stage by size and nodes: {stage}",
    "similar.no_groups": "Subtype and stage cannot be told from the inputs of this model.",
    "similar.show": "Show",
    "similar.subtype_her2": "HER2 positive",
    "similar.subtype_er": "ER positive, HER2 negative",
    "similar.subtype_neither": "ER negative, HER2 negative",
    "similar.found": "The nearest {many} of {compared}",
    "similar.outcomes": "What became of them",
    "similar.outcome": "On record",
    "similar.count": "Patients",
    "similar.share": "Share",
    "similar.interval": "95 % interval",
    "similar.of": "{count} of {of}",
    "similar.suppressed": "fewer than {fewest}, or all but fewer than {fewest}: not shown",
    "similar.died": "Died",
    "similar.worse": "Disease status, last recorded: worse",
    "similar.no_outcomes": "No outcome has landed for any of these patients.",
    "similar.outcomes_caution": (
        "Counts of what is on record, whenever it was recorded, among those for whom it is on record at all. Time of "
        "observation differs between patients: these are no survival estimates and say nothing about treatment."
    ),
    "similar.estimates": "The model’s own estimates",
    "similar.estimate_own": "This patient",
    "similar.estimate_middle": "The middle half of the similar patients",
    "similar.estimate_median": "Their median",
    "similar.overlap": "What was compared",
    "similar.overlap_what": (
        "Inputs that this patient has; how many of the similar patients have that kind of data; and, in the median of "
        "these, how many inputs both have that differ between patients at all."
    ),
    "similar.modality": "Kind of data",
    "similar.own": "Inputs here",
    "similar.have": "Have it, too",
    "similar.both": "Inputs compared",
    "similar.distances": "Distance",
    "similar.distance_median": "Median distance",
    "similar.distance_middle": "Distance of their middle half",
    "similar.how": "How the distance is measured",
    "similar.rule": (
        "Each input is standardised by the mean and the standard deviation of all patients who have it; one that is "
        "the same in all of them does not count. Two patients are compared by the kinds of data that both have, in "
        "these by the inputs that both have, each kind counting the same: a distance of 1 means that inputs differ by "
        "one standard deviation. Whoever shares less than half of this patient’s inputs is not compared. All are "
        "measured; nothing is approximated."
    ),
    "similar.who_not": (
        "Not counted: this patient, whoever opted out, records that are withheld from you, erased patients, and test "
        "patients beside real ones."
    ),
    "similar.stage_rule": (
        "Stage here is I to III by tumour size and number of positive nodes alone; growth into skin or chest wall is "
        "not in these numbers."
    ),
}
