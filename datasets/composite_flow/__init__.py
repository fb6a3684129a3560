"""The MEGC2019 composite as onset-to-apex flow images."""
