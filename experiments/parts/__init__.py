"""Parts of scripts that know both the corpora and stag_jax, or the command line; the scripts are beside this folder."""
