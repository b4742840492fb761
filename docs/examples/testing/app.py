from galaxy_trio import ConnectionLost


async def run_with_retry(constellation, request):
    try:
        return (await constellation.run_task(request)).unwrap()
    except ConnectionLost:  # it may have run; this task may run twice
        return (await constellation.run_task(request)).unwrap()
