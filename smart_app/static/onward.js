// Sends the authorization request on; without this script the button does.
document.getElementById("onward").requestSubmit();
