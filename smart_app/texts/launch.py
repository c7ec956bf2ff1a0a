"""What the pages before a case say: choosing an EHR, being sent there, and why no case was opened."""

TEXTS = {
    "launch.start": "Open from an EHR",
    "launch.start_lead": "Choose the EHR that you work in. It asks you to sign in and to choose a patient; then the "
    "case opens here.",
    "launch.none": "No EHR is set up to open this app. Whoever runs this system sets it up in the configuration.",
    "launch.open_in": "Open from {title}",
    "launch.onward": "On to the EHR",
    "launch.onward_lead": "The EHR checks that it is you, and comes back here.",
    "launch.continue": "Continue",
    "launch.window": "Open in a window of its own",
    "launch.window_lead": "Your browser does not let this app remember you inside the EHR's frame, so nothing was "
    "opened here. In a window of its own it works as usual.",
    "launch.window_again": "If the EHR then says that the link was used, open the app from the patient's chart again.",
    "launch.failed": "The case was not opened",
    "launch.said": "Reason: {what}.",
    "launch.unproved": "What came back from the EHR does not belong to a launch that this browser began a moment ago, "
    "or is not signed as it should be.",
    "launch.again": "Open the app again from the patient's chart. If it happens again, tell whoever runs this system.",
    "launch.wrong": "Two patients do not agree",
    "launch.wrong_lead": "What the EHR said about the patient does not fit together. Nothing is shown, and this was "
    "put on record as a safety event.",
    "launch.choose": "Choose an EHR",
    "launch.sign_out": "Sign out",
    "launch.over": "You are signed out",
    "launch.over_lead": "The case is closed. Open the app again from the patient's chart.",
}
