from galaxy_trio import ConnectionLost


async def run_twice_if_need_be(constellation, request):
    try:
        return (await constellation.run_task(request)).unwrap()
    except ConnectionLost:  # it may have run; this task may do so twice
        return (await constellation.run_task(request)).unwrap()
