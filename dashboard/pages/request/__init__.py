"""Pages that request jobs: an address, the form that shows and changes it, and what it asks for.

    state      an address --> choices, problems with them, the request, its job and results
    frame      what such pages have in common; a page adds its own parts
    form       describes the form of one page

    address --> page callback --> filling --> controls
    controls --(browser: what differs from what was filled)--> changes --(browser)--> address
    First, Random, All, a condition --> picking --(browser)--> address
    Run, Enter --> running (the values in the controls) --> job --> event of the job controller --> page callback

The page has a job controller (`pages.job_progress`) with the name of the form: the form reports to it.
"""
