"""The tumor board over the store: meetings (`meetings`), what was agreed (`agreed`), what is known (`known`), who sits
there and what they have open (`seats`), FHIR drafts (`drafts`); `desk` implements `smart_app.boards.Boards`."""
