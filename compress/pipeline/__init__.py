"""What flows through a run: the state, the stages that change it, the cache of what is finished."""
